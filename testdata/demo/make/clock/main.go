// Clock prints the time in the zone that its argument names. It is the program of the demo image.
package main

import (
	"os"
	"time"
)

func main() {
	zone := "UTC"
	if len(os.Args) > 1 {
		zone = os.Args[1]
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	println(time.Now().In(loc).Format(time.RFC1123Z))
}
