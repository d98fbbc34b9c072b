package servers_test

import (
	"net"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/redis/go-redis/v9"

	"vitrine.io/pkg/test/servers"
)

// refused fails the test if somebody listens on one of the addresses.
func refused(t *testing.T, addrs []string) {
	t.Helper()
	for _, addr := range addrs {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			conn.Close()
			t.Errorf("a stopped server still listens on %s", addr)
		}
	}
}

func TestOwnServers(t *testing.T) {
	t.Parallel()
	t.Run("postgres_restart_keeps_data", testOwnServersPostgresRestartKeepsData)
	t.Run("redis_restart_keeps_data", testOwnServersRedisRestartKeepsData)
	t.Run("kafka_restart_keeps_topics", testOwnServersKafkaRestartKeepsTopics)
}

func testOwnServersPostgresRestartKeepsData(t *testing.T) {
	t.Parallel()
	server := servers.PostgresServer(t)
	exec(t, connect(t, server.DSN), "CREATE TABLE kept AS SELECT 42 AS n")
	server.Stop(t)
	refused(t, server.Addrs)
	server.Start(t)
	var got int
	if err := connect(t, server.DSN).QueryRow(t.Context(), "SELECT n FROM kept").Scan(&got); err != nil || got != 42 {
		t.Errorf("got %d, error %v; want 42", got, err)
	}
}

func testOwnServersRedisRestartKeepsData(t *testing.T) {
	t.Parallel()
	server := servers.RedisServer(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: server.Addrs})
	t.Cleanup(func() { client.Close() })
	for _, key := range []string{"a", "b", "c"} { // slots of three nodes
		if err := client.Set(t.Context(), key, key, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	server.Stop(t)
	refused(t, server.Addrs)
	server.Start(t)
	for _, key := range []string{"a", "b", "c"} {
		if got, err := client.Get(t.Context(), key).Result(); err != nil || got != key {
			t.Errorf("got %q, error %v; want %q", got, err, key)
		}
	}
}

func testOwnServersKafkaRestartKeepsTopics(t *testing.T) {
	t.Parallel()
	server := servers.KafkaServer(t)
	admin := func() sarama.ClusterAdmin {
		admin, err := sarama.NewClusterAdmin(server.Addrs, sarama.NewConfig())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { admin.Close() })
		return admin
	}
	detail := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}
	if err := admin().CreateTopic("kept", detail, false); err != nil {
		t.Fatal(err)
	}
	server.Stop(t)
	refused(t, server.Addrs)
	server.Start(t)
	if topics, err := admin().ListTopics(); err != nil || topics["kept"].NumPartitions != 1 {
		t.Errorf("got topics %v, error %v; want the one made before", topics, err)
	}
}
