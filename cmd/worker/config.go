package main

import (
	"vitrine.io/pkg/blob"
	"vitrine.io/pkg/codec"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/fetch"
	"vitrine.io/pkg/kafka"
	"vitrine.io/pkg/postgres"
	"vitrine.io/pkg/program"
	"vitrine.io/pkg/rediscache"
)

// Config is everything that can be said about this program.
type Config struct {
	program.Config
	Worker   worker.Config        `envPrefix:"WORKER_"`
	Breaker  worker.BreakerConfig `envPrefix:"CIRCUIT_"`
	Fetch    fetch.Config         `envPrefix:"FETCH_"`
	Codec    codec.Config         `envPrefix:"CODEC_"`
	Catalog  catalog.Config       `envPrefix:"CATALOG_"`
	Postgres postgres.Config      `envPrefix:"POSTGRES_"`
	Redis    rediscache.Config    `envPrefix:"REDIS_"`
	Kafka    kafka.Config         `envPrefix:"KAFKA_"`
	S3       blob.Config          `envPrefix:"S3_"`
}
