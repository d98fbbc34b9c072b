package httpapi

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

const (
	maxPriceLength   = 32 // characters: numeric(12,2) needs 14, with sign and point
	maxPriceExponent = 20 // 1e999999999 is eleven characters, and a gigabyte of digits once it is calculated with
)

// parsePrice reads a number as JSON writes one, exactly, or says what is wrong with it. Nothing of text is kept.
func parsePrice(text string) (decimal.Decimal, *fieldError) {
	notANumber := &fieldError{Code: "not_a_number", Detail: "must be a decimal number such as 19.90"}
	if len(text) > maxPriceLength {
		return decimal.Zero, &fieldError{Code: "out_of_range", Detail: "must have at most 32 characters"}
	}
	if !isNumber(text) {
		return decimal.Zero, notANumber
	}
	mantissa, exponent := text, 0
	if e := strings.IndexAny(text, "eE"); e >= 0 {
		var err error
		mantissa = text[:e]
		if exponent, err = strconv.Atoi(text[e+1:]); err != nil || exponent > maxPriceExponent || exponent < -maxPriceExponent {
			return decimal.Zero, &fieldError{Code: "out_of_range", Detail: "must have an exponent from -20 to 20"}
		}
	}
	price, err := decimal.NewFromString(mantissa)
	if err != nil {
		return decimal.Zero, notANumber
	}
	return price.Shift(int32(exponent)), nil //nolint:gosec // at most maxPriceExponent
}

// isNumber reports whether text is a JSON number: what is valid JSON and ends like a number and begins like one.
func isNumber(text string) bool {
	return text != "" && (text[0] == '-' || isDigit(text[0])) && isDigit(text[len(text)-1]) && json.Valid([]byte(text))
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
