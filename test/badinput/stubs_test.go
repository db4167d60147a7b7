package badinput

var plugins, natives []bad

func servePlugin(string) {}
