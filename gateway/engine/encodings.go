package engine

import (
	"io"

	rss "github.com/krakend/krakend-rss/v2"
	xml "github.com/krakend/krakend-xml/v2"
	ginxml "github.com/krakend/krakend-xml/v2/gin"
	"github.com/luraproject/lura/v2/encoding"
	luragin "github.com/luraproject/lura/v2/router/gin"
)

// registerEncodings adds the encodings that Lura does not have itself. They
// are the same for all configurations.
func registerEncodings() error {
	if err := xml.Register(); err != nil {
		return err
	}
	luragin.RegisterRender(xml.Name, ginxml.Render)
	// The module's decoder keeps one parser for a backend, which is not safe
	// for concurrent requests.
	return encoding.GetRegister().Register(rss.Name, func(bool) func(io.Reader, *map[string]any) error {
		return func(r io.Reader, v *map[string]any) error { return rss.NewDecoder()(r, v) }
	})
}
