// Chaos shows that nothing is lost, whatever crashes: it runs api and worker as processes on real servers, lets
// clients use them while processes are killed, paused and cut off from each other, heals everything, and has a checker look
// at what is left.
//
// What happens to whom and when is a pure function of the seed ([Plan]). How the programs get along with it is not: two runs
// of a seed are the same weather, not the same voyage.
//
// The checker gathers a [Snapshot] from Postgres, Kafka, the bucket and the API, with nothing of the programs' own code, and
// holds it to [Rules], plain functions. It also reads what a trigger in the database has noted of every change of a row, so
// that it sees not only how things ended but how they came there.
//
// A run of a seed that fails leaves a directory with the logs of all programs, the clients' histories and the rows' one.
package main
