package grafana

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// FolderUID is the folder that Install puts the dashboards into.
const FolderUID = "binnacle"

// maxAnswer bounds what is read of one answer of Grafana.
const maxAnswer = 4 << 20

// Installer brings data sources and dashboards into a running Grafana, through
// its HTTP API. It changes only what has our ids, so it may run again after
// each upgrade.
//
// Source: Grafana documentation, "HTTP API": data source, folder and dashboard;
// the forms that Grafana 9 to 13 serve.
type Installer struct {
	// URL is Grafana's address; Token a token of a service account with the
	// role Admin, which data sources need.
	URL, Token string
	// ManagerURL is where Grafana itself reaches the manager.
	ManagerURL string
	// ReaderToken goes into the data sources. When it is empty, data sources
	// that exist keep theirs, and new ones are made without.
	ReaderToken string
	// HTTP calls Grafana; nil is http.DefaultClient.
	HTTP *http.Client
	// Say tells each thing that is done; nil tells nobody.
	Say func(format string, args ...any)
}

// dataSource is one data source as Grafana's API has it.
type dataSource struct {
	UID            string            `json:"uid"`
	Name           string            `json:"name"`
	Type           string            `json:"type"`
	Access         string            `json:"access"`
	URL            string            `json:"url"`
	IsDefault      bool              `json:"isDefault"`
	JSONData       map[string]any    `json:"jsonData"`
	SecureJSONData map[string]string `json:"secureJsonData,omitempty"`
}

// grafanaError is an answer that says no.
type grafanaError struct {
	method, path string
	status       int
	message      string
}

func (e *grafanaError) Error() string {
	return fmt.Sprintf("%s %s: Grafana answers %d: %s", e.method, e.path, e.status, e.message)
}

// Install makes or renews everything and asks each data source whether it
// works. It stops at the first refusal; what was done before stays.
func (in Installer) Install(ctx context.Context) error {
	if in.Say == nil {
		in.Say = func(string, ...any) {}
	}
	for _, d := range in.sources() {
		if err := in.putSource(ctx, d); err != nil {
			return err
		}
	}
	if err := in.putFolder(ctx); err != nil {
		return err
	}
	all := Dashboards()
	for _, file := range slices.Sorted(maps.Keys(all)) {
		if err := in.putDashboard(ctx, all[file]); err != nil {
			return err
		}
	}
	return in.checkSources(ctx)
}

// sources are those of the provisioning file; a test keeps them equal.
func (in Installer) sources() []dataSource {
	base := strings.TrimSuffix(in.ManagerURL, "/")
	list := []dataSource{
		{UID: MetricsUID, Name: "Binnacle", Type: "prometheus", Access: "proxy", URL: base + "/prometheus", JSONData: map[string]any{
			"httpMethod": "POST", "timeInterval": "10s", "prometheusType": "Prometheus", "prometheusVersion": "3.0.0",
			"exemplarTraceIdDestinations": []any{map[string]any{"name": "trace_id", "datasourceUid": TracesUID}},
		}},
		{UID: TracesUID, Name: "Binnacle traces", Type: "jaeger", Access: "proxy", URL: base + "/jaeger", JSONData: map[string]any{}},
	}
	if in.ReaderToken != "" {
		for i := range list {
			list[i].SecureJSONData = map[string]string{"httpHeaderValue1": "Bearer " + in.ReaderToken}
		}
	}
	for i := range list {
		list[i].JSONData["httpHeaderName1"] = "Authorization"
	}
	return list
}

func (in Installer) putSource(ctx context.Context, d dataSource) error {
	path := "/api/datasources/uid/" + d.UID
	var have dataSource
	err := in.call(ctx, http.MethodGet, path, nil, &have)
	var refused *grafanaError
	switch {
	case err == nil:
		d.Name, d.IsDefault = have.Name, have.IsDefault // as their owner named them
		if err := in.call(ctx, http.MethodPut, path, d, nil); err != nil {
			return fmt.Errorf("renew the data source %s: %w", d.UID, err)
		}
		in.Say("data source %s is renewed: %s", d.Name, d.URL)
		return nil
	case errors.As(err, &refused) && refused.status == http.StatusNotFound:
		if err := in.call(ctx, http.MethodPost, "/api/datasources", d, nil); err != nil {
			return fmt.Errorf("make the data source %s: %w", d.UID, err)
		}
		in.Say("data source %s is made: %s", d.Name, d.URL)
		return nil
	}
	return fmt.Errorf("look for the data source %s: %w", d.UID, err)
}

func (in Installer) putFolder(ctx context.Context) error {
	err := in.call(ctx, http.MethodGet, "/api/folders/"+FolderUID, nil, nil)
	var refused *grafanaError
	if errors.As(err, &refused) && refused.status == http.StatusNotFound {
		err = in.call(ctx, http.MethodPost, "/api/folders", map[string]any{"uid": FolderUID, "title": "Binnacle"}, nil)
		if err == nil {
			in.Say("folder Binnacle is made")
		}
	}
	if err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	return nil
}

func (in Installer) putDashboard(ctx context.Context, d Dashboard) error {
	var out struct {
		URL string `json:"url"`
	}
	body := map[string]any{"dashboard": d, "folderUid": FolderUID, "overwrite": true, "message": "binnacle grafana provision"}
	if err := in.call(ctx, http.MethodPost, "/api/dashboards/db", body, &out); err != nil {
		return fmt.Errorf("write the dashboard %s: %w", d.Title, err)
	}
	in.Say("dashboard %s: %s%s", d.Title, strings.TrimSuffix(in.URL, "/"), out.URL)
	return nil
}

// checkSources lets Grafana itself ask the manager: the address must be one
// that Grafana reaches, and the token one that the manager knows.
func (in Installer) checkSources(ctx context.Context) error {
	var out struct {
		Status  string `json:"status"`
		Message string `json:"message"`
	}
	err := in.call(ctx, http.MethodGet, "/api/datasources/uid/"+MetricsUID+"/health", nil, &out)
	if err == nil && !strings.EqualFold(out.Status, "ok") {
		err = errors.New(out.Message)
	}
	if err != nil {
		return fmt.Errorf("everything is installed, but Grafana cannot read from the manager at %s: is that an address that Grafana reaches, and is the reader token right? %w", in.ManagerURL, err)
	}
	in.Say("Grafana reads from the manager")
	return nil
}

func (in Installer) call(ctx context.Context, method, path string, body, out any) error {
	base, err := url.Parse(in.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return fmt.Errorf("address of Grafana %q: want http://HOST:PORT or https://HOST", in.URL)
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(in.URL, "/")+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+in.Token)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	hc := in.HTTP
	if hc == nil {
		hc = http.DefaultClient
	}
	resp, err := hc.Do(req)
	if err != nil {
		return fmt.Errorf("reach Grafana: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of Grafana: %w", err)
	}
	if resp.StatusCode >= 300 {
		return refusal(method, path, resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode the answer of %s %s (is %s a Grafana?): %w", method, path, in.URL, err)
	}
	return nil
}

// refusal says what Grafana said, and what to do where that is known.
func refusal(method, path string, status int, body []byte) error {
	var said struct {
		Message string `json:"message"`
	}
	const most = 200
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = strings.TrimSpace(string(body[:min(len(body), most)]))
	}
	switch status {
	case http.StatusUnauthorized:
		said.Message += "; the token is not valid: make one in Grafana under Administration, Service accounts"
	case http.StatusForbidden:
		said.Message += "; the service account needs the role Admin, for the data sources"
	}
	return &grafanaError{method, path, status, said.Message}
}
