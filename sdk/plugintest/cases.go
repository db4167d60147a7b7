package plugintest

// Cases lists the rules in the order in which they are tried.
func Cases() []Case {
	return []Case{
		{"describe", "Describe needs nothing, always answers the same, and says only what the contract knows.", "Operations", nil, (*kit).describe},
		{"options", "An option value that the plugin cannot mean ends with class 2, before anything else is wrong.", "Errors", []string{"describe"}, (*kit).options},
		{"operations", "An operation that the plugin does not have ends with class 3.", "Operations", []string{"describe"}, (*kit).operations},

		{"converts", "A layer is converted, or the format cannot hold it and the plugin says so with class 3.", "Operations", []string{"describe"}, (*kit).converts},
		{"grants", "Only streams that the request announces are opened.", "Streams and handles", []string{"describe"}, faultless("grants")},
		{"handles", "Handles are used for what they name, and not after they were closed.", "Streams and handles", []string{"describe"}, faultless("handles")},
		{"outputs", "Every output is closed, and the layer is read.", "Streams and handles", []string{"describe"}, faultless("outputs")},
		{"claims", "The response names every output once, and what it says of them is true.", "Messages", []string{"converts"}, (*kit).claimsTrue},

		{"same bytes", "The same request gives the same bytes.", "Operations", []string{"converts"}, (*kit).sameBytes},
		{"defaults", "An option that is named with its default gives the same bytes as one that is left out.", "Operations", []string{"same bytes"}, (*kit).defaults},
		{"cores", "Bytes do not depend on the number of cores.", "Operations", []string{"same bytes"}, (*kit).cores},
		{"batches", "Bytes do not depend on how much one call to the host gives.", "Entries", []string{"same bytes"}, (*kit).batches},
		{"parallel", "Conversions at the same time do not influence each other.", "Operations", []string{"same bytes"}, (*kit).parallel},

		{"cancel", "A cancelled operation ends within a second.", "Errors", []string{"converts"}, (*kit).cancel},
		{"failing output", "An output that fails ends the operation with its error.", "Errors", []string{"converts"}, (*kit).failingOutput},
		{"dictionaries", "Only the bytes of a dictionary count, and one that the plugin cannot use ends with class 2, 3, 4, 5 or 7.", "Streams and handles", []string{"converts"}, (*kit).dictionaries},
		{"truncated layer", "A layer that ends early ends the operation with class 5, and nothing is answered.", "Errors", []string{"converts"}, (*kit).truncatedLayer},

		{"unpack layer", "Unpack of a converted layer gives the layer, entry by entry.", "Operations", []string{"claims"}, (*kit).unpackLayer},
		{"image", "Layers are put together in their order, and Unpack of the image gives its file system.", "Operations", []string{"claims"}, (*kit).image},
		{"check", "Check finds nothing wrong with what the plugin made, and something with a part that is cut.", "Operations", []string{"image"}, (*kit).check},
	}
}
