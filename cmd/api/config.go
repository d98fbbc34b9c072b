package main

import (
	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/adapter/rediscache"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/maintenance"
	"vitrine.io/pkg/domain/relay"
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/platform/program"
)

// Config is the configuration of the program.
type Config struct {
	program.Config
	HTTP        httpapi.Config                `envPrefix:"HTTP_"`
	Catalog     catalog.Config                `envPrefix:"CATALOG_"`
	Postgres    postgres.Config               `envPrefix:"POSTGRES_"`
	Redis       rediscache.Config             `envPrefix:"REDIS_"`
	Kafka       kafka.Config                  `envPrefix:"KAFKA_"`
	S3          blob.Config                   `envPrefix:"S3_"`
	Relay       relay.Config                  `envPrefix:"RELAY_"`
	Scheduler   scheduler.Config              `envPrefix:"SCHEDULER_"`
	Rescuer     maintenance.RescuerConfig     `envPrefix:"RESCUER_"`
	Cleaner     maintenance.CleanerConfig     `envPrefix:"CLEANER_"`
	GC          maintenance.GCConfig          `envPrefix:"GC_"`
	Auditor     maintenance.AuditorConfig     `envPrefix:"AUDITOR_"`
	Reprocessor maintenance.ReprocessorConfig `envPrefix:"REPROCESSOR_"`
	Backfill    backfill.Config               `envPrefix:"BACKFILL_"`
}
