//go:build nftables

package main

import sdk "github.com/hashicorp/consul/sdk/nftables"

type config = sdk.Config

var setup = sdk.Setup
