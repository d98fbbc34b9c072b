package event_test

import (
	"fmt"

	"vitrine.io/pkg/foundation/event"
)

// A message goes through the outbox and Kafka, and is decoded into the same body.
func Example() {
	sent := event.New("0199c3a2-7d1e-7c44-9a51-2f0c4b6d8e10", event.Key(7), event.ProductChanged{ProductID: 7, Version: 4})
	fmt.Println(sent.Topic, sent.Key)
	fmt.Println(string(sent.Body))

	got, err := event.FromRecord(sent.Topic, []byte(sent.Key), sent.Body, sent.Headers())
	if err != nil {
		fmt.Println(err)
		return
	}
	change, err := event.Decode[event.ProductChanged](got)
	fmt.Println(change.ProductID, change.Version, err)
	// Output:
	// vitrine.products.changed 7
	// {"product_id":7,"product_version":4,"deleted":false}
	// 7 4 <nil>
}

// The error of Decode is stored with the record that could not be decoded.
func ExampleDecode_newerVersion() {
	m := event.New("0199c3a2-7d1e-7c44-9a51-2f0c4b6d8e10", event.Key(7), event.ProductChanged{ProductID: 7, Version: 4})
	m.Version = 2
	_, err := event.Decode[event.ProductChanged](m)
	fmt.Println(err)
	// Output: product.changed version 2 is newer than 1
}
