// Package configfile reads configuration files in all the forms that KrakenD's
// users keep them in: JSON, YAML or TOML, rendered from templates by flexible
// configuration, with values from the environment on top. What comes out is
// one JSON document. What the document means is the engine's to say. The node
// reads its own file with it, and the command line a file that it pushes.
package configfile
