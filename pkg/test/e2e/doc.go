// E2e tests the chart on a real cluster. It installs the release of skaffold.yaml into a namespace of its own, uses,
// operates and disrupts it, and prints one line for each stage.
//
//	make e2e                       # all stages, in kubectl's current context
//	make e2e STAGES=install,reload # some of them
//
// The cluster needs KEDA, a default StorageClass and the container images: those of skaffold.yaml, the stand-in whose codec
// sleeps, and the helper, which is this program. In pods, the helper serves and sends what the stages need: proxy routes as
// the Ingress does, source serves images, burst and load are clients, get reads a URL. All traffic stays between pods; the
// machine that runs the stages only talks to the API server, with kubectl and helm.
//
// A stage fails unless all its conditions hold, and every wait has a deadline. Speeds are printed and compared with their
// goals, but are no condition, because the machine may be busy. After a failure the release stays for inspection. After a
// run in which all stages passed, docs/e2e.md has their lines; lines of other stages stay.
//
// The namespace has a label. The program changes nothing in a namespace without it.
package main
