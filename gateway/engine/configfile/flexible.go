package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// Flexible is KrakenD's flexible configuration: a file that is a Go template,
// with settings, partials and further templates beside it. All folders may be
// empty.
//
// Source: krakend-flexibleconfig, template.go. Unlike it, a partial that cannot
// be read and settings that are no JSON are errors.
type Flexible struct {
	// Settings is a folder; each NAME.json in it is .NAME.
	Settings string
	// Partials is a folder that include reads files of.
	Partials string
	// Templates is a folder; each *.tmpl in it is a template by its file name.
	Templates string
	// Out is a file that takes the result, too.
	Out string
	// Env answers the function env; nil answers nothing.
	Env func(name string) string
}

// errTooLarge ends a template that renders without end.
var errTooLarge = fmt.Errorf("the rendered configuration exceeds %d MiB", maxBytes>>20)

// Render returns what file renders to.
func (f Flexible) Render(file string) ([]byte, error) {
	vars, err := f.settings()
	if err != nil {
		return nil, fmt.Errorf("flexible configuration: settings: %w", err)
	}
	t := template.New("config").Funcs(f.functions())
	raw, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("flexible configuration: %w", err)
	}
	name := filepath.Base(file)
	if _, err := t.New(name).Parse(string(raw)); err != nil {
		return nil, fmt.Errorf("flexible configuration: %w", err)
	}
	if f.Templates != "" {
		if err := addTemplates(t, f.Templates); err != nil {
			return nil, fmt.Errorf("flexible configuration: templates: %w", err)
		}
	}
	var out bounded
	if err := t.ExecuteTemplate(&out, name, vars); err != nil {
		return nil, fmt.Errorf("flexible configuration: %w", err)
	}
	if f.Out != "" {
		if err := os.WriteFile(f.Out, out.Bytes(), 0o600); err != nil {
			return nil, fmt.Errorf("flexible configuration: write the result (FC_OUT): %w", err)
		}
	}
	return out.Bytes(), nil
}

// bounded is a buffer that does not grow without end.
type bounded struct{ bytes.Buffer }

// Write fails with errTooLarge.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxBytes {
		return 0, errTooLarge
	}
	return b.Buffer.Write(p)
}

func (f Flexible) settings() (map[string]any, error) {
	vars := map[string]any{}
	if f.Settings == "" {
		return vars, nil
	}
	files, err := os.ReadDir(f.Settings)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, e := range files {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || e.IsDir() {
			continue
		}
		raw, err := readFile(filepath.Join(f.Settings, e.Name()))
		var v map[string]any
		if err == nil {
			if err = json.Unmarshal(raw, &v); err != nil {
				err = fmt.Errorf("%s: %w", e.Name(), err)
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		vars[name] = v
	}
	return vars, errors.Join(errs...)
}

func addTemplates(t *template.Template, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range files {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".tmpl") {
			continue
		}
		raw, err := readFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if _, err := t.New(e.Name()).Parse(string(raw)); err != nil {
			return err
		}
	}
	return nil
}

// include returns a partial as it is. It stays inside the folder.
func (f Flexible) include(name string) (string, error) {
	if f.Partials == "" {
		return "", errors.New("there is no folder of partials (FC_PARTIALS)")
	}
	root, err := os.OpenRoot(f.Partials)
	if err != nil {
		return "", err
	}
	defer root.Close()
	st, err := root.Stat(name)
	if err != nil {
		return "", err
	}
	if st.Size() > maxBytes {
		return "", errTooLarge
	}
	raw, err := root.ReadFile(name)
	return string(raw), err
}
