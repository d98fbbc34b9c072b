package servers_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/IBM/sarama"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/redis/go-redis/v9"

	"vitrine.io/pkg/test/servers"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	addrs, one := servers.Redis(t)
	_, other := servers.Redis(t)
	if one == other {
		t.Errorf("two tests got the prefix %q", one)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs[:1]})
	t.Cleanup(func() { client.Close() })
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} { // of slots on all three nodes
		if err := client.Set(t.Context(), one+key, "x", 0).Err(); err != nil {
			t.Errorf("set %s: %v", key, err)
		}
	}
	var masters atomic.Int32
	err := client.ForEachMaster(t.Context(), func(context.Context, *redis.Client) error { masters.Add(1); return nil })
	if got := int(masters.Load()); err != nil || got != 3 || len(addrs) != 3 {
		t.Errorf("got %d masters of %v, error %v; want 3", got, addrs, err)
	}
}

func TestKafka(t *testing.T) {
	t.Parallel()
	brokers, prefix := servers.Kafka(t)
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Producer.Return.Successes = true
	admin, err := sarama.NewClusterAdmin(brokers, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	topic := prefix + "things"
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	producer, err := sarama.NewSyncProducer(brokers, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { producer.Close() })
	if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder("x")}); err != nil {
		t.Error(err)
	}
}

func TestS3(t *testing.T) {
	t.Parallel()
	var client *s3.Client
	var bucket servers.Bucket
	t.Run("a test that fills its bucket", func(t *testing.T) { // not parallel: what it leaves is looked at below
		bucket = servers.S3(t)
		client = s3.New(s3.Options{
			BaseEndpoint: aws.String(bucket.Endpoint), Region: bucket.Region, UsePathStyle: true,
			HTTPClient:  &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
			Credentials: credentials.NewStaticCredentialsProvider(bucket.AccessKey, bucket.SecretKey, ""),
		})
		if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket.Bucket}); err != nil {
			t.Fatal(err)
		}
		put := &s3.PutObjectInput{Bucket: &bucket.Bucket, Key: aws.String("a/b")}
		if _, err := client.PutObject(t.Context(), put); err != nil {
			t.Fatal(err)
		}
	})
	if client == nil { // the test inside has told: it failed, or make test-short has left it out
		return
	}
	if _, err := client.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &bucket.Bucket}); err == nil {
		t.Error("the bucket is still there")
	}
}
