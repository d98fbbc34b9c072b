package fault_test

import (
	"errors"
	"fmt"

	"vitrine.io/pkg/foundation/fault"
)

// The function that understands an error classifies it, its callers wrap it, and the outermost caller handles it.
func Example() {
	refused := errors.New("dial 10.0.0.7:5432: connection refused")
	err := error(fault.Wrap(refused, fault.Unavailable, "database_unavailable", "The database does not answer."))
	err = fmt.Errorf("load product: %w", err)

	fmt.Println("kind:  ", fault.KindOf(err))
	fmt.Println("detail:", fault.From(err).Detail)
	fmt.Println("log:   ", err)
	// Output:
	// kind:   unavailable
	// detail: The database does not answer.
	// log:    load product: database_unavailable: The database does not answer.: dial 10.0.0.7:5432: connection refused
}

// One error lists all wrong fields of a request.
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
