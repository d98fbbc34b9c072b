// E2e shows on a real cluster what the chart promises: it installs the release that skaffold.yaml describes into a namespace
// of its own, does what users, operators and bad luck do to it, and prints one line for each stage.
//
//	make e2e                      # all stages, against kubectl's current context
//	make e2e STAGES=install,reload # some of them
//
// The cluster needs KEDA, a default StorageClass and the images: those of skaffold.yaml, the stand-in whose codec
// sleeps, and the helper, which is this program, too. In pods it is what the stages need there: proxy routes as the Ingress
// says, source serves pictures, burst and load are clients, get reads one URL. So all traffic goes from pod to pod, and the
// machine that runs the stages only speaks to the API server, through kubectl and helm.
//
// A stage fails unless all of it was seen, and every wait has a deadline. Speeds are printed and compared with their
// goals but are no condition: a busy machine is no defect. After a failure the release stays, for inspection. After a run
// in which all stages passed, docs/e2e.md has its lines; those of other stages stay as they were.
//
// The namespace is recognised by a label, and nothing is ever changed in one that lacks it.
package main
