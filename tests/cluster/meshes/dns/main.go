// The DNS server of the cluster: addresses of Services, which it asks the API server for at each query. While that does not
// answer, they are those of the last time, as with any other name server. Other names do not exist, so no query leaves the
// cluster.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	suffix  = ".svc.cluster.local."
	ttl     = 1
	// Resolvers wait for 5 s.
	timeout = 2 * time.Second
)

type api struct {
	client *http.Client
	server string
	mutex  sync.Mutex
	last   map[string][]string
}

func main() {
	authority, err := os.ReadFile(account + "ca.crt")
	must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	server := "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	client := &http.Client{Transport: transport, Timeout: timeout}
	cluster := &api{client: client, server: server, last: map[string][]string{}}
	for _, network := range []string{"udp", "tcp"} {
		server := &dns.Server{Addr: ":53", Net: network, Handler: dns.HandlerFunc(cluster.answer)}
		go func() { must(server.ListenAndServe()) }()
	}
	select {}
}

func (cluster *api) answer(writer dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.Authoritative = true
	question := query.Question[0]
	addresses, err := cluster.remembered(strings.ToLower(question.Name))
	switch {
	case err != nil:
		log.Print(question.Name, ": ", err)
		reply.Rcode = dns.RcodeServerFailure
	case addresses == nil:
		reply.Rcode = dns.RcodeNameError
	}
	for _, text := range addresses {
		header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
		address := net.ParseIP(text)
		isIPv4 := address.To4() != nil
		if question.Qtype == dns.TypeA && isIPv4 {
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: address})
		}
		if question.Qtype == dns.TypeAAAA && !isIPv4 {
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: address})
		}
	}
	writer.WriteMsg(reply)
}

// The addresses of a name, or those that it had before, if the API server does not answer.
func (cluster *api) remembered(name string) ([]string, error) {
	addresses, err := cluster.addresses(name)
	cluster.mutex.Lock()
	defer cluster.mutex.Unlock()
	if last, found := cluster.last[name]; err != nil && found {
		log.Print(name, ": ", err, ", so that of the last time")
		return last, nil
	}
	if err == nil && addresses != nil {
		cluster.last[name] = addresses
	}
	return addresses, err
}

// The addresses of NAME.NAMESPACE.svc.cluster.local; nothing if there is no such Service.
func (cluster *api) addresses(name string) ([]string, error) {
	words := strings.Split(strings.TrimSuffix(name, suffix), ".")
	if !strings.HasSuffix(name, suffix) || len(words) != 2 {
		return nil, nil
	}
	var service struct{ Spec struct{ ClusterIPs []string } }
	found, err := cluster.get("/api/v1/namespaces/"+words[1]+"/services/"+words[0], &service)
	if err != nil || !found {
		return nil, err
	}
	if len(service.Spec.ClusterIPs) == 0 || service.Spec.ClusterIPs[0] != "None" {
		return service.Spec.ClusterIPs, nil
	}
	var slices struct {
		Items []struct {
			Endpoints []struct {
				Addresses  []string
				Conditions struct{ Ready *bool }
			}
		}
	}
	path := "/apis/discovery.k8s.io/v1/namespaces/" + words[1] + "/endpointslices?labelSelector=kubernetes.io/service-name="
	if _, err := cluster.get(path+words[0], &slices); err != nil {
		return nil, err
	}
	addresses := []string{}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			if endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready {
				addresses = append(addresses, endpoint.Addresses...)
			}
		}
	}
	return addresses, nil
}

func (cluster *api) get(path string, into any) (bool, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return false, err
	}
	request, err := http.NewRequest(http.MethodGet, cluster.server+path, nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := cluster.client.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return true, json.NewDecoder(response.Body).Decode(into)
	case http.StatusNotFound:
		return false, nil
	}
	return false, fmt.Errorf("the API server answered %s", response.Status)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
