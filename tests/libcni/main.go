// What container runtimes take from a directory of network configurations, by the code that they are built from.
//
//	libcni choose DIR        prints, as JSON, the verdict of libcni on each file, and what containerd and CRI-O choose
//	libcni del BIN CACHE ID  takes a container down by the cached configuration, as CRI-O does
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	gocni "github.com/containerd/go-cni"
	"github.com/containernetworking/cni/libcni"
)

// File is the verdict on a file.
type File struct {
	Name    string   `json:"file"`
	Error   string   `json:"error"`
	Network string   `json:"network"`
	Version string   `json:"version"`
	Plugins []string `json:"plugins"`
}

// Choice is what is taken of a directory.
type Choice struct {
	Files      []File   `json:"files"`
	Containerd []string `json:"containerd"`
	Refused    string   `json:"refused"`
	Crio       string   `json:"crio"`
}

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "choose":
		err = choose(os.Args[2])
	case len(os.Args) == 5 && os.Args[1] == "del":
		err = del(os.Args[2], os.Args[3], os.Args[4])
	default:
		err = fmt.Errorf("usage: libcni choose DIR | del BIN CACHE ID")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Of go-cni's loadFromConfDir and of ocicni's loadNetworks, the call for one file is the same.
func load(path string) (*libcni.NetworkConfigList, error) {
	if strings.HasSuffix(path, ".conflist") {
		return libcni.ConfListFromFile(path)
	}
	conf, err := libcni.ConfFromFile(path)
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(conf)
}

func types(list *libcni.NetworkConfigList) []string {
	names := []string{}
	for _, plugin := range list.Plugins {
		names = append(names, plugin.Network.Type)
	}
	return names
}

func choose(dir string) error {
	paths, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return err
	}
	sort.Strings(paths)
	choice := Choice{Files: []File{}, Containerd: []string{}}
	for _, path := range paths {
		file := File{Name: filepath.Base(path), Plugins: []string{}}
		list, err := load(path)
		switch {
		case err != nil:
			file.Error = err.Error()
		default:
			file.Network, file.Version, file.Plugins = list.Name, list.CNIVersion, types(list)
			// ocicni passes over what cannot be loaded. It also validates, with the binaries of the plugins.
			if choice.Crio == "" {
				choice.Crio = file.Name
			}
		}
		choice.Files = append(choice.Files, file)
	}
	runtime, err := gocni.New(gocni.WithPluginConfDir(dir), gocni.WithPluginMaxConfNum(1))
	if err != nil {
		return err
	}
	if err := runtime.Load(gocni.WithDefaultConf); err != nil {
		choice.Refused = err.Error()
	}
	for _, network := range runtime.GetConfig().Networks {
		for _, plugin := range network.Config.Plugins {
			choice.Containerd = append(choice.Containerd, plugin.Network.Type)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(choice)
}

// As ocicni's TearDownPod: the attachments of the container, and for each the configuration that is cached with it.
func del(bin, cache, container string) error {
	cni := libcni.NewCNIConfigWithCacheDir([]string{bin}, cache, nil)
	attachments, err := cni.GetCachedAttachments(container)
	if err != nil {
		return err
	}
	for _, attachment := range attachments {
		list, err := libcni.ConfListFromBytes(attachment.Config)
		if err != nil {
			return err
		}
		runtime := &libcni.RuntimeConf{
			ContainerID:    container,
			NetNS:          attachment.NetNS,
			IfName:         attachment.IfName,
			Args:           attachment.CniArgs,
			CapabilityArgs: attachment.CapabilityArgs,
		}
		if err := cni.DelNetworkList(context.Background(), list, runtime); err != nil {
			return err
		}
	}
	return nil
}
