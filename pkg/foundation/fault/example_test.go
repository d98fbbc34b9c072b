package fault_test

import (
	"errors"
	"fmt"

	"vitrine.io/pkg/foundation/fault"
)

// An error is classified where it is understood, wrapped on its way, and decided on once, at the top.
func Example() {
	refused := errors.New("dial 10.0.0.7:5432: connection refused")
	err := error(fault.Wrap(refused, fault.Unavailable, "database_unavailable", "The database does not answer."))
	err = fmt.Errorf("load product: %w", err)

	fmt.Println("decide:", fault.KindOf(err))
	fmt.Println("show:  ", fault.From(err).Detail)
	fmt.Println("log:   ", err)
	// Output:
	// decide: unavailable
	// show:   The database does not answer.
	// log:    load product: database_unavailable: The database does not answer.: dial 10.0.0.7:5432: connection refused
}

// All wrong fields of a request come back together.
func ExampleInvalidFields() {
	err := fault.InvalidFields([]fault.Field{
		{Path: "product_name", Code: "required", Detail: "must not be empty"},
		{Path: "product_price", Code: "out_of_range", Detail: "must not be below zero"},
	})
	for _, f := range fault.From(err).Fields {
		fmt.Println(f.Path, f.Code)
	}
	// Output:
	// product_name required
	// product_price out_of_range
}
