package grafana

// The part of Grafana's dashboard model that our dashboards use.
//
// Source: Grafana, "Dashboard JSON model", schema version 39.

// Dashboard is one dashboard.
type Dashboard struct {
	UID           string      `json:"uid"`
	Title         string      `json:"title"`
	Description   string      `json:"description"`
	Tags          []string    `json:"tags"`
	Timezone      string      `json:"timezone"`
	SchemaVersion int         `json:"schemaVersion"`
	Version       int         `json:"version"`
	Refresh       string      `json:"refresh"`
	Editable      bool        `json:"editable"`
	GraphTooltip  int         `json:"graphTooltip"` // 1 shares the crosshair
	Time          TimeRange   `json:"time"`
	Templating    Templating  `json:"templating"`
	Annotations   Annotations `json:"annotations"`
	Links         []Link      `json:"links"`
	Panels        []Panel     `json:"panels"`
}

// TimeRange is what a dashboard opens with.
type TimeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Source names a provisioned data source.
type Source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// Templating holds the variables.
type Templating struct {
	List []Variable `json:"list"`
}

// Variable is a choice at the top of a dashboard.
type Variable struct {
	Name       string `json:"name"`
	Label      string `json:"label"`
	Type       string `json:"type"`
	Datasource Source `json:"datasource"`
	Query      string `json:"query"`
	Refresh    int    `json:"refresh"` // 2 asks again when the time range changes
	Multi      bool   `json:"multi"`
	IncludeAll bool   `json:"includeAll"`
	AllValue   string `json:"allValue"`
	Sort       int    `json:"sort"`
	Current    any    `json:"current"`
}

// Link is a way from one dashboard to another.
type Link struct {
	Title       string   `json:"title"`
	Type        string   `json:"type"`
	Tags        []string `json:"tags"`
	AsDropdown  bool     `json:"asDropdown"`
	KeepTime    bool     `json:"keepTime"`
	IncludeVars bool     `json:"includeVars"`
}

// Annotations holds the queries for vertical lines.
type Annotations struct {
	List []Annotation `json:"list"`
}

// Annotation is one such query.
type Annotation struct {
	Name       string `json:"name"`
	Datasource Source `json:"datasource"`
	Enable     bool   `json:"enable"`
	IconColor  string `json:"iconColor"`
	Expr       string `json:"expr"`
	Step       string `json:"step"`
	TitleText  string `json:"titleFormat"`
	TextFormat string `json:"textFormat"`
	TagKeys    string `json:"tagKeys"`
}

// Panel is one panel, or a row with a title.
type Panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description,omitempty"`
	Datasource  *Source     `json:"datasource,omitempty"`
	GridPos     GridPos     `json:"gridPos"`
	Targets     []Target    `json:"targets,omitempty"`
	FieldConfig FieldConfig `json:"fieldConfig"`
	Options     any         `json:"options,omitempty"`
	Transform   []any       `json:"transformations,omitempty"`
	Collapsed   *bool       `json:"collapsed,omitempty"`
}

// GridPos places a panel on the grid of 24 columns.
type GridPos struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

// Target is one query of a panel.
type Target struct {
	RefID        string `json:"refId"`
	Datasource   Source `json:"datasource"`
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat,omitempty"`
	Instant      bool   `json:"instant,omitempty"`
	Range        bool   `json:"range,omitempty"`
	Format       string `json:"format,omitempty"`
	Exemplar     bool   `json:"exemplar,omitempty"`
}

// FieldConfig says how values look.
type FieldConfig struct {
	Defaults  FieldDefaults `json:"defaults"`
	Overrides []any         `json:"overrides"`
}

// FieldDefaults holds unit, thresholds and the drawing style.
type FieldDefaults struct {
	Unit       string         `json:"unit,omitempty"`
	Decimals   *int           `json:"decimals,omitempty"`
	Min        *float64       `json:"min,omitempty"`
	Color      map[string]any `json:"color,omitempty"`
	Thresholds *Thresholds    `json:"thresholds,omitempty"`
	Custom     map[string]any `json:"custom,omitempty"`
	NoValue    string         `json:"noValue,omitempty"`
}

// Thresholds color values.
type Thresholds struct {
	Mode  string      `json:"mode"`
	Steps []Threshold `json:"steps"`
}

// Threshold is one step; the first has a nil value.
type Threshold struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"`
}

var (
	metricsSource = Source{Type: "prometheus", UID: MetricsUID}
	zero          = 0.0
)

// grid lays panels out from left to right and wraps at 24 columns.
type grid struct {
	panels     []Panel
	x, y, rowH int
}

func (g *grid) add(p Panel, w, h int) {
	if g.x+w > 24 {
		g.x, g.y, g.rowH = 0, g.y+g.rowH, 0
	}
	p.ID = len(g.panels) + 1
	p.GridPos = GridPos{H: h, W: w, X: g.x, Y: g.y}
	if p.FieldConfig.Overrides == nil {
		p.FieldConfig.Overrides = []any{}
	}
	g.panels = append(g.panels, p)
	g.x += w
	g.rowH = max(g.rowH, h)
}

func (g *grid) row(title string) {
	if g.x > 0 {
		g.x, g.y, g.rowH = 0, g.y+g.rowH, 0
	}
	open := false
	g.add(Panel{Type: "row", Title: title, Collapsed: &open}, 24, 1)
}

// series draws lines over time.
func series(title, description, unit string, stacked bool, targets ...Target) Panel {
	custom := map[string]any{"lineWidth": 1, "fillOpacity": 0, "showPoints": "never", "spanNulls": false}
	if stacked {
		custom["fillOpacity"] = 25
		custom["stacking"] = map[string]any{"mode": "normal", "group": "A"}
	}
	return Panel{
		Type: "timeseries", Title: title, Description: description, Datasource: &metricsSource, Targets: number(targets),
		FieldConfig: FieldConfig{Defaults: FieldDefaults{Unit: unit, Min: &zero, Custom: custom}},
		Options: map[string]any{
			"legend":  map[string]any{"displayMode": "table", "placement": "bottom", "calcs": []string{"lastNotNull", "max"}, "showLegend": true},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		},
	}
}

// stat draws one number.
func stat(title, description, unit, expr string, steps ...Threshold) Panel {
	d := FieldDefaults{Unit: unit, NoValue: "–"}
	if len(steps) > 0 {
		d.Thresholds = &Thresholds{Mode: "absolute", Steps: steps}
		d.Color = map[string]any{"mode": "thresholds"}
	}
	return Panel{
		Type: "stat", Title: title, Description: description, Datasource: &metricsSource,
		Targets:     number([]Target{{Expr: expr, Instant: true}}),
		FieldConfig: FieldConfig{Defaults: d},
		Options: map[string]any{
			"colorMode": "value", "graphMode": "none", "textMode": "value",
			"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		},
	}
}

// warn colors a series panel's background line where values become bad.
func (p Panel) warn(steps ...Threshold) Panel {
	p.FieldConfig.Defaults.Thresholds = &Thresholds{Mode: "absolute", Steps: append([]Threshold{{Color: "transparent"}}, steps...)}
	p.FieldConfig.Defaults.Custom["thresholdsStyle"] = map[string]any{"mode": "line+area"}
	return p
}

// logScale draws values that span powers of ten.
func (p Panel) logScale() Panel {
	p.FieldConfig.Defaults.Custom["scaleDistribution"] = map[string]any{"type": "log", "log": 10}
	p.FieldConfig.Defaults.Min = nil // a log axis has no zero
	return p
}

// exemplars shows traces as dots on the panel. Its query must read a series that
// has them: those that nodes send, not the roll-ups.
func (p Panel) exemplars() Panel {
	for i := range p.Targets {
		p.Targets[i].Exemplar = true
	}
	return p
}

// heatmap draws the distribution of a native histogram over time.
//
// yAxis.min and max are set: without them Grafana 12 draws nothing for native
// histograms whose zero bucket is filled or whose buckets are custom.
func heatmap(title, description, unit, expr string, low, high float64) Panel {
	return Panel{
		Type: "heatmap", Title: title, Description: description, Datasource: &metricsSource,
		Targets:     number([]Target{{Expr: expr, Range: true, Format: "heatmap"}}),
		FieldConfig: FieldConfig{Defaults: FieldDefaults{Unit: unit, Custom: map[string]any{"scaleDistribution": map[string]any{"type": "linear"}}}},
		Options: map[string]any{
			"calculate":    false,
			"cellGap":      1,
			"color":        map[string]any{"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "scale": "exponential", "fill": "dark-orange", "reverse": false},
			"exemplars":    map[string]any{"color": "rgba(255,0,255,0.7)"},
			"filterValues": map[string]any{"le": 1e-9},
			"legend":       map[string]any{"show": true},
			"rowsFrame":    map[string]any{"layout": "auto"},
			"tooltip":      map[string]any{"mode": "single", "yHistogram": true, "showColorScale": false},
			"yAxis":        map[string]any{"axisPlacement": "left", "unit": unit, "min": low, "max": high, "reverse": false},
		},
	}
}

// column names a column of a table and its unit; the key is the label, or
// "Value #A" for the first query.
type column struct{ key, title, unit string }

// table lists the newest value of several queries side by side, a row for each
// set of labels.
func table(title, description string, columns []column, targets ...Target) Panel {
	names, order, overrides := map[string]any{}, map[string]any{}, []any{}
	for i, c := range columns {
		names[c.key], order[c.key] = c.title, i
		if c.unit != "" {
			props := []any{map[string]any{"id": "unit", "value": c.unit}}
			if c.unit == "percentunit" {
				props = append(props,
					map[string]any{"id": "custom.cellOptions", "value": map[string]any{"type": "color-background", "mode": "basic"}},
					map[string]any{"id": "thresholds", "value": Thresholds{Mode: "absolute", Steps: []Threshold{{Color: "transparent"}, above(0.01, "orange"), above(0.05, "red")}}})
			}
			overrides = append(overrides, map[string]any{"matcher": map[string]any{"id": "byName", "options": c.title}, "properties": props})
		}
	}
	for i := range targets {
		targets[i].Instant, targets[i].Range, targets[i].Format = true, false, "table"
	}
	return Panel{
		Type: "table", Title: title, Description: description, Datasource: &metricsSource, Targets: number(targets),
		FieldConfig: FieldConfig{Defaults: FieldDefaults{Unit: "none", NoValue: "–"}, Overrides: overrides},
		Options:     map[string]any{"showHeader": true, "cellHeight": "sm", "footer": map[string]any{"show": false}},
		Transform: []any{
			map[string]any{"id": "merge", "options": map[string]any{}},
			map[string]any{"id": "organize", "options": map[string]any{"excludeByName": map[string]any{"Time": true}, "indexByName": order, "renameByName": names}},
		},
	}
}

// query is a target over time.
func query(expr, legend string) Target { return Target{Expr: expr, LegendFormat: legend, Range: true} }

func number(targets []Target) []Target {
	for i := range targets {
		targets[i].RefID = string(rune('A' + i))
		targets[i].Datasource = metricsSource
	}
	return targets
}
