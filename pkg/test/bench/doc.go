// Bench measures the cost of Vitrine's layers: each benchmark runs an operation with Vitrine and, in the same run, the same
// operation with as little code as possible (the bare side), and divides the two results.
//
//	go run ./pkg/test/withservers -- go run ./pkg/test/bench
//
// The benchmarks are Go benchmarks in the tests of this package, on real servers. This program runs them with go test,
// writes their tables into docs/benchmarks.md between two markers, and prints one line "ratio NAME N" for each pair at the
// end: Vitrine's throughput divided by that of the bare side, so that 1 means no cost.
//
// A ratio is the median over many short rounds in which the two sides alternate, so that other load on the machine affects
// both. No number is compared with a limit, because a busy machine is not a defect. A failed benchmark and a missing ratio
// are errors, and leave docs/benchmarks.md unchanged. Without -bench the tests of this package run each operation a few
// times and compare the results of the two sides.
package main
