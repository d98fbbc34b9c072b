package httpapi

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

// The bounds of a number's notation.
const (
	maxNumberLength   = 32 // characters: a price needs 14, with sign and point, and a whole number 20
	maxNumberExponent = 20 // 1e999999999 is eleven characters, and a gigabyte of digits in a calculation
)

// parseNumber reads a number as JSON writes one, exactly, or says what is wrong with it. The result does not alias text.
func parseNumber(text string) (decimal.Decimal, *fieldError) {
	notANumber := &fieldError{Code: "not_a_number", Detail: "must be a decimal number such as 19.90"}
	if !isNumber(text) {
		return decimal.Zero, notANumber
	}
	if len(text) > maxNumberLength {
		return decimal.Zero, &fieldError{Code: "out_of_range", Detail: "must have at most 32 characters"}
	}
	mantissa, exponent := text, 0
	if e := strings.IndexAny(text, "eE"); e >= 0 {
		var err error
		mantissa = text[:e]
		if exponent, err = strconv.Atoi(text[e+1:]); err != nil || exponent > maxNumberExponent || exponent < -maxNumberExponent {
			return decimal.Zero, &fieldError{Code: "out_of_range", Detail: "must have an exponent from -20 to 20"}
		}
	}
	number, err := decimal.NewFromString(mantissa)
	if err != nil {
		return decimal.Zero, notANumber
	}
	return number.Shift(int32(exponent)), nil //nolint:gosec // at most maxNumberExponent
}

// isNumber reports whether text is a JSON number: valid JSON that begins and ends like a number.
func isNumber(text string) bool {
	return text != "" && (text[0] == '-' || isDigit(text[0])) && isDigit(text[len(text)-1]) && json.Valid([]byte(text))
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// parseWhole reads a whole number as JSON Schema defines it: 1.0 and 1e0 are whole numbers, too.
func parseWhole(text string) (int64, *fieldError) {
	number, wrong := parseNumber(text)
	switch {
	case wrong != nil:
		return 0, wrong
	case !number.IsInteger():
		return 0, &fieldError{Code: "wrong_type", Detail: "must be a whole number"}
	case number.IsNegative() && !number.BigInt().IsInt64():
		return 0, &fieldError{Code: "out_of_range", Detail: "is too small a number"}
	case !number.BigInt().IsInt64():
		return 0, &fieldError{Code: "out_of_range", Detail: "is too large a number"}
	default:
		return number.IntPart(), nil
	}
}
