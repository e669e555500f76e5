// Command revoked is the whole program: a node of the cluster, a cluster for trying it out, the
// operator's commands and the benchmark.
//
// It joins the packages below it and holds nothing of its own that decides about a token. Results go
// to standard output, messages to standard error. The exit code is 0 when the thing was done, 1 when
// it failed, 2 for a negative answer and 64 when the command line was wrong.
//
// It never takes a token or a secret from the command line, where every user of the machine could
// read it, and prints none but secrets that were made a moment ago: dev shows those of its clients to
// the newcomer who started it, client create and client rotate-secret show a new one this once.
//
// What is dangerous: server creates and owns data_dir; cert and keygen write private keys (mode 0600,
// never over a file that is there unless forced).
package main
