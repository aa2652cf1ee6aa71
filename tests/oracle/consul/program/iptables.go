//go:build !nftables

package main

import sdk "github.com/hashicorp/consul/sdk/iptables"

type config = sdk.Config

var setup = sdk.Setup
