package main

import (
	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/codec"
	"vitrine.io/pkg/adapter/fetch"
	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/worker"
	"vitrine.io/pkg/platform/program"
)

// Config is the configuration of the program.
type Config struct {
	program.Config
	Worker   worker.Config        `envPrefix:"WORKER_"`
	Breaker  worker.BreakerConfig `envPrefix:"BREAKER_"`
	Egress   worker.EgressConfig  `envPrefix:"EGRESS_"`
	Fetch    fetch.Config         `envPrefix:"FETCH_"`
	Codec    codec.Config         `envPrefix:"CODEC_"`
	Catalog  catalog.Config       `envPrefix:"CATALOG_"`
	Postgres postgres.Config      `envPrefix:"POSTGRES_"`
	Redis    rediscache.Config    `envPrefix:"REDIS_"`
	Kafka    kafka.Config         `envPrefix:"KAFKA_"`
	S3       blob.Config          `envPrefix:"S3_"`
}
