// Command redirect applies the rules of Consul's SDK to the network namespace that it runs in.
//
// Usage: CONSUL_DUAL_STACK=true|false redirect CONFIGURATION
//
// The configuration is JSON, as Consul's injector writes it for Consul's CNI plugin and for its init container. The SDK
// writes rules for iptables up to version 0.18, for nftables since 0.19: build with `-tags nftables` then.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: CONSUL_DUAL_STACK=true|false redirect CONFIGURATION")
		os.Exit(2)
	}
	var configuration config
	decoder := json.NewDecoder(strings.NewReader(os.Args[1]))
	decoder.DisallowUnknownFields() // A key that is misspelt would be a rule that is not recorded.
	if err := decoder.Decode(&configuration); err != nil {
		fail(err)
	}
	if err := setup(configuration, os.Getenv("CONSUL_DUAL_STACK") == "true"); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "redirect:", err)
	os.Exit(1)
}
