package httpapi_test

import (
	"slices"
	"testing"

	"vitrine.io/pkg/adapter/httpapi"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	t.Run("every_wrong_field", testConfigValidateEveryWrongField)
	t.Run("shutdown_above_handler_timeout", testConfigValidateShutdownAboveHandlerTimeout)
	t.Run("share_of_bytes_holds_a_body", testConfigValidateBytesInFlight)
	t.Run("origins", testConfigValidateOrigins)
}

func testConfigValidateEveryWrongField(t *testing.T) {
	t.Parallel()
	if wrong := testConfig().Validate(); wrong != nil {
		t.Errorf("a valid configuration: %v", wrong)
	}
	var got []string
	wrong := httpapi.Config{
		Addr: "8080", CORSOrigins: []string{"*", "https://a.example"}, MaxConnections: -1, TrustedProxies: []string{"10.0.0.1"},
	}
	for _, f := range wrong.Validate() {
		got = append(got, f.Path+" "+f.Code)
	}
	want := []string{
		"ADDR invalid_address", "READ_TIMEOUT out_of_range", "WRITE_TIMEOUT out_of_range", "IDLE_TIMEOUT out_of_range",
		"HANDLER_TIMEOUT out_of_range", "SHUTDOWN_TIMEOUT out_of_range", "BODY_LIMIT out_of_range", "HEADER_LIMIT out_of_range",
		"MAX_CONNECTIONS out_of_range", "CLIENT_SHARE out_of_range", "TRUSTED_PROXIES invalid_network",
		"MAX_IN_FLIGHT out_of_range", "CORS_ORIGINS invalid_origin",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testConfigValidateShutdownAboveHandlerTimeout(t *testing.T) {
	t.Parallel()
	c := testConfig()
	c.ShutdownTimeout = c.HandlerTimeout
	if wrong := c.Validate(); len(wrong) != 1 || wrong[0].Path != "SHUTDOWN_TIMEOUT" {
		t.Errorf("got %v", wrong)
	}
}

func testConfigValidateBytesInFlight(t *testing.T) {
	t.Parallel()
	c := testConfig()
	c.ClientShare, c.MaxBytesInFlight, c.TrustedProxies = 8, 10<<20-1, []string{"10.0.0.0/8", "fd00::/8"}
	if wrong := c.Validate(); len(wrong) != 1 || wrong[0].Path != "MAX_BYTES_IN_FLIGHT" {
		t.Errorf("a share below one body: got %v", wrong)
	}
	c.MaxBytesInFlight++
	if wrong := c.Validate(); wrong != nil {
		t.Errorf("a share of one body: got %v", wrong)
	}
}

func testConfigValidateOrigins(t *testing.T) {
	t.Parallel()
	for origin, good := range map[string]bool{
		"*": true, "https://shop.example": true, "http://localhost:3000": true, "http://[::1]:3000": true,
		"shop.example": false, "https://shop.example/": false, "https://shop.example/x": false, "ftp://shop.example": false,
		"https://u@shop.example": false, "https://": false, "": false, "https://shop.example?x": false, "%": false,
	} {
		c := testConfig()
		c.CORSOrigins = []string{origin}
		if got := c.Validate() == nil; got != good {
			t.Errorf("%q: accepted %t, want %t", origin, got, good)
		}
	}
}
