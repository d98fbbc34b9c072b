package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// String formats the duration as time.Duration does, without zero parts at the end: "10m", not "10m0s".
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalJSON encodes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON decodes a string such as "30s". A number without a unit is an error.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return errDuration
	}
	return d.parse(text)
}

var (
	errDuration = errors.New(`must be a duration such as "30s" or "10m"`)
	errBytes    = errors.New(`must be a number of bytes such as 1048576 or "25Mi"`)
)

// parse leaves d unchanged after an error.
func (d *Duration) parse(text string) error {
	parsed, err := time.ParseDuration(text)
	if err != nil || utf8.RuneCountInString(text) > maxText {
		return errDuration
	}
	*d = Duration(parsed)
	return nil
}

// unit is a suffix of Bytes.
type unit struct {
	suffix string
	factor int64
}

// units are the suffixes of Kubernetes quantities, larger before smaller, binary before decimal.
var units = []unit{
	{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10},
	{"G", 1_000_000_000}, {"M", 1_000_000}, {"k", 1_000},
}

// String formats the number with the largest binary suffix of which it is a multiple: "25Mi", "1500".
func (b Bytes) String() string {
	for _, u := range units[:3] {
		if b != 0 && int64(b)%u.factor == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.factor, u.suffix)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalJSON encodes the number as a string with its suffix.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(b.String()) }

// UnmarshalJSON decodes an integer, or a string with a suffix: Ki, Mi, Gi, or k, M, G.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	text := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return errBytes
		}
	}
	return b.parse(text)
}

// parse leaves b unchanged after an error.
func (b *Bytes) parse(text string) error {
	if len(text) > maxText {
		return errBytes
	}
	factor := int64(1)
	for _, u := range units {
		if digits, found := strings.CutSuffix(text, u.suffix); found {
			text, factor = digits, u.factor
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > math.MaxInt64/factor || n < math.MinInt64/factor {
		return errBytes
	}
	*b = Bytes(n * factor)
	return nil
}
