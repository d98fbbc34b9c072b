// Bench measures what our layers cost: each of its benchmarks does a thing with Vitrine and, in the same run, the same
// thing with as little code as it can be done, and divides the two.
//
//	go run ./pkg/test/withservers -- go run ./pkg/test/bench
//
// The benchmarks themselves are Go benchmarks in this package's tests, on real servers. This program runs them with go
// test, writes their tables into docs/benchmarks.md between two markers, and ends with one line "ratio NAME N" for each
// pair: our throughput divided by the bare one's, so 1 means that we cost nothing.
//
// A ratio is the median over many short rounds in which the two sides take turns, so what else the machine does hits both.
// No number is compared with a limit here: a busy machine is not a defect. A benchmark that fails, or a missing ratio, is
// an error, and then docs/benchmarks.md stays as it was. Without -bench the tests of this package do each thing a few
// times and compare what the two sides did.
package main
