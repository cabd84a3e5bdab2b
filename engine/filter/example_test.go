package filter_test

import (
	"fmt"

	"github.com/fanfare/fanfare/engine/filter"
)

// A filter is read once and then asked about each connection.
func Example() {
	f, err := filter.Parse("startswith(userId, 'a') and not ('muted' in groups)")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Match(&filter.Subject{ConnectionID: "1", UserID: "ann"}))
	fmt.Println(f.Match(&filter.Subject{ConnectionID: "2", UserID: "bo"}))
	fmt.Println(f.Match(&filter.Subject{ConnectionID: "3"})) // nobody's connection

	_, err = filter.Parse("userId lt 1")
	fmt.Println(err)
	// Output:
	// true
	// false
	// false
	// Invalid syntax for 'userId lt 1': Type 'string', expect 'int'. (Parameter 'filter')
}
