package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

// readExample decodes an example into a structure. An unknown field is an error.
func readExample(t *testing.T, name string, into any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader([]byte(readPage(t, "deploy/examples/"+name))))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// localProxy is the address at which deploy/examples/haproxy/local.cfg listens.
const localProxy = "http://127.0.0.1:8480"

// The examples that no test runs have only known fields with the right types. They name the
// proxy in local.cfg, cache no answers, and refuse a request when the proxy does not answer.
func TestGatewayFiles_WithoutTestRun_AreConsistent(t *testing.T) {
	if !strings.Contains(readPage(t, "deploy/examples/haproxy/local.cfg"), "bind 127.0.0.1:8480\n") {
		t.Error("local.cfg: got another address, want 127.0.0.1:8480")
	}
	t.Run("Kong", testKongFile)
	t.Run("APISIX", testAPISIXFile)
	t.Run("Traefik", testTraefikFile)
	t.Run("Spring", testSpringFile)
	t.Run("Envoy", testEnvoyFile)
}

func testKongFile(t *testing.T) {
	var kong struct {
		Format   string `yaml:"_format_version"`
		Services []struct {
			Name, URL string
			Routes    []struct {
				Name  string
				Paths []string
			}
			Plugins []struct {
				Name   string
				Config struct {
					Methods    []string `yaml:"auth_methods"`
					From       []string `yaml:"bearer_token_param_type"`
					Issuer     string
					Endpoint   string   `yaml:"introspection_endpoint"`
					Method     string   `yaml:"introspection_endpoint_auth_method"`
					ID         []string `yaml:"client_id"`
					Secret     []string `yaml:"client_secret"`
					Cache      *bool    `yaml:"cache_introspection"`
					Tokens     *bool    `yaml:"cache_tokens"`
					Introspect bool     `yaml:"introspect_jwt_tokens"`
					Timeout    int
				}
			}
		}
	}
	readExample(t, "kong/kong.yml", &kong)
	c := kong.Services[0].Plugins[0].Config
	if c.Endpoint != localProxy+"/oauth2/introspect" || c.Cache == nil || *c.Cache || c.Tokens == nil || *c.Tokens ||
		!c.Introspect || !slices.Equal(c.Methods, []string{"introspection"}) || len(c.ID) != len(c.Secret) {
		t.Errorf("got %+v, want introspections without a cache", c)
	}
}

func testAPISIXFile(t *testing.T) {
	var apisix struct {
		Routes []struct {
			URI      string
			Upstream struct {
				Type  string
				Nodes map[string]int
			}
			Plugins struct {
				Auth struct {
					URI      string
					Request  []string `yaml:"request_headers"`
					Upstream []string `yaml:"upstream_headers"`
					Client   []string `yaml:"client_headers"`
					Timeout  int
					Degrade  *bool `yaml:"allow_degradation"`
					Status   int   `yaml:"status_on_error"`
				} `yaml:"forward-auth"`
			}
		}
	}
	readExample(t, "apisix/apisix.yaml", &apisix)
	p := apisix.Routes[0].Plugins.Auth
	if p.URI != localProxy+"/v1/check" || p.Degrade == nil || *p.Degrade || p.Status != 503 ||
		!slices.Contains(p.Request, "Authorization") {
		t.Errorf("got %+v, want forward authentication that refuses without an answer", p)
	}
}

func testTraefikFile(t *testing.T) {
	var traefik struct {
		HTTP struct {
			Routers map[string]struct {
				Rule, Service string
				Middlewares   []string
			}
			Middlewares map[string]struct {
				Headers struct {
					Request map[string]string `yaml:"customRequestHeaders"`
				}
				Auth struct {
					Address  string
					Request  []string `yaml:"authRequestHeaders"`
					Response []string `yaml:"authResponseHeaders"`
				} `yaml:"forwardAuth"`
			}
			Services map[string]struct {
				Balancer struct {
					Servers []struct{ URL string }
				} `yaml:"loadBalancer"`
			}
		}
	}
	readExample(t, "traefik/dynamic.yml", &traefik)
	r := traefik.HTTP.Routers["application"]
	if _, ok := traefik.HTTP.Services[r.Service]; !ok || len(r.Middlewares) != len(traefik.HTTP.Middlewares) {
		t.Errorf("got router %+v, want it to use the service and every middleware", r)
	}
	for _, name := range r.Middlewares {
		if _, ok := traefik.HTTP.Middlewares[name]; !ok {
			t.Errorf("got middleware %q, want one of the file", name)
		}
	}
	if a := traefik.HTTP.Middlewares["revoked"].Auth; a.Address != localProxy+"/v1/check" ||
		!slices.Equal(a.Request, []string{"Authorization"}) {
		t.Errorf("got %+v, want forward authentication with the token only", a)
	}
}

func testSpringFile(t *testing.T) {
	var spring struct {
		Spring struct {
			Security struct {
				OAuth2 struct {
					Server struct {
						Opaque struct {
							URI    string `yaml:"introspection-uri"`
							ID     string `yaml:"client-id"`
							Secret string `yaml:"client-secret"`
						} `yaml:"opaquetoken"`
					} `yaml:"resourceserver"`
				} `yaml:"oauth2"`
			}
		}
	}
	readExample(t, "spring/application.yml", &spring)
	o := spring.Spring.Security.OAuth2.Server.Opaque
	if o.URI != localProxy+"/oauth2/introspect" || o.ID == "" || o.Secret == "" {
		t.Errorf("got %+v, want the local proxy and credentials", o)
	}
}

// An envoyFilter has the members of the filters in the example.
type envoyFilter struct {
	Name   string
	Config struct {
		Type    string `yaml:"@type"`
		Allow   *bool  `yaml:"failure_mode_allow"`
		OnError struct {
			Code string
		} `yaml:"status_on_error"`
		HTTP struct {
			Server struct {
				URI, Cluster, Timeout string
			} `yaml:"server_uri"`
			Prefix  string `yaml:"path_prefix"`
			Request struct {
				Add []struct{ Key, Value string } `yaml:"headers_to_add"`
			} `yaml:"authorization_request"`
			Response map[string]struct {
				Patterns []struct{ Exact string }
			} `yaml:"authorization_response"`
		} `yaml:"http_service"`
		Prefix  string        `yaml:"stat_prefix"`
		Options any           `yaml:"common_http_protocol_options"`
		Filters []envoyFilter `yaml:"http_filters"`
		Routes  struct {
			Hosts []struct {
				Name    string
				Domains []string
				Routes  []struct {
					Match struct{ Prefix string }
					Route struct{ Cluster string }
				}
			} `yaml:"virtual_hosts"`
		} `yaml:"route_config"`
	} `yaml:"typed_config"`
}

func testEnvoyFile(t *testing.T) {
	var envoy struct {
		Static struct {
			Listeners []struct {
				Name    string
				Address any
				Chains  []struct {
					Filters []envoyFilter
				} `yaml:"filter_chains"`
			}
			Clusters []struct {
				Name, Type string
				Timeout    string           `yaml:"connect_timeout"`
				Checks     []map[string]any `yaml:"health_checks"`
				Common     any              `yaml:"common_lb_config"`
				Socket     struct {
					Name   string
					Config map[string]any `yaml:"typed_config"`
				} `yaml:"transport_socket"`
				Load struct {
					Name      string `yaml:"cluster_name"`
					Endpoints any
				} `yaml:"load_assignment"`
			}
		} `yaml:"static_resources"`
	}
	readExample(t, "envoy/envoy.yaml", &envoy)
	known := map[string]bool{}
	for _, c := range envoy.Static.Clusters {
		known[c.Name] = true
		if c.Load.Name != c.Name {
			t.Errorf("cluster %s: got load_assignment of %s, want its own", c.Name, c.Load.Name)
		}
		if c.Name == "revoked" && (c.Socket.Config["common_tls_context"] == nil || len(c.Checks) == 0) {
			t.Error("got no TLS context or no health check of the nodes, want both")
		}
	}
	manager := envoy.Static.Listeners[0].Chains[0].Filters[0].Config
	auth := manager.Filters[0].Config
	if auth.Allow == nil || *auth.Allow || auth.OnError.Code != "ServiceUnavailable" || auth.HTTP.Prefix != "/v1/check" ||
		!known[auth.HTTP.Server.Cluster] || len(auth.HTTP.Request.Add) != 1 {
		t.Errorf("got ext_authz %+v, want it to ask the nodes and to refuse without an answer", auth)
	}
	if c := manager.Routes.Hosts[0].Routes[0].Route.Cluster; !known[c] {
		t.Errorf("got a route to %q, want a cluster of the file", c)
	}
}
