// Command revoked is the whole program: a node, a cluster for trials, the operator's commands and
// the benchmark.
//
// It connects the packages below it and makes no decision about tokens itself. Results go to
// standard output, messages to standard error. The exit code is 0 for success, 1 for failure, 2 for
// a negative answer and 64 for wrong usage.
//
// Pass tokens and secrets in files, standard input or environment variables: every user of the
// machine can read arguments. Only new secrets are printed: dev prints those of its clients, client
// create and client rotate-secret print a new one once.
//
// Dangerous: server creates and owns data_dir. cert and keygen write private keys with mode 0600,
// and replace existing files only with --force.
package main
