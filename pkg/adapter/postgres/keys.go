package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"vitrine.io/pkg/domain/maintenance"
)

// keyDaysAhead is the number of days after today for which idempotency_keys has partitions. The table stays usable for as
// many days while no program creates partitions.
const keyDaysAhead = 7

// keyLock is held by the one process that changes the partitions. Advisory locks belong to the whole database, so the schema
// is part of the name.
const keyLock = `hashtextextended(current_schema() || ' partitions of idempotency_keys', 2)`

// selectKeyDays returns the tables that are or were partitions, oldest first. A table that is not attached was detached by a
// process that ended before it dropped the table.
const selectKeyDays = `
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day, (now() AT TIME ZONE 'UTC')::date AS today,
    i.inhrelid IS NOT NULL AS attached, coalesce(i.inhdetachpending, false) AS pending
FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname ~ '^idempotency_keys_[0-9]{8}$'
ORDER BY day`

// keyDay is the table of one day.
type keyDay struct {
	Day, Today        time.Time
	Attached, Pending bool // Pending: a detachment was started and has not ended
}

// table returns the name of the table, which needs no quotes.
func (d keyDay) table() string { return "idempotency_keys_" + d.Day.Format("20060102") }

// old reports whether all keys of the day are older than 24 hours.
func (d keyDay) old() bool { return d.Day.Before(d.Today.AddDate(0, 0, -1)) }

// RotateKeys implements maintenance.KeyPartitions.
func (s *Store) RotateKeys(ctx context.Context) (maintenance.KeyRotation, error) {
	createErr := s.createKeyDays(ctx)
	days, err := s.keyDays(ctx)
	if err != nil {
		return maintenance.KeyRotation{}, errors.Join(createErr, err)
	}
	dropped, dropErr := s.dropKeyDays(ctx, days)
	return maintenance.KeyRotation{DaysAhead: daysAhead(days), Dropped: dropped}, errors.Join(createErr, dropErr)
}

func (s *Store) keyDays(ctx context.Context) ([]keyDay, error) {
	return query[keyDay](ctx, s.db, "key_days", selectKeyDays)
}

// daysAhead returns how many days after today have a partition without a gap, and -1 if today has none.
func daysAhead(days []keyDay) int {
	ahead := -1
	for _, d := range days {
		if d.Attached && !d.Pending && d.Day.Equal(d.Today.AddDate(0, 0, ahead+1)) {
			ahead++
		}
	}
	return ahead
}

const selectMissingKeyDays = `
SELECT d::date AS day
FROM generate_series((now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + $1::int, '1 day') d
WHERE to_regclass(current_schema() || '.idempotency_keys_' || to_char(d, 'YYYYMMDD')) IS NULL ORDER BY d`

// createKeyDays creates the partitions of today and of the next days. To attach a table takes a lock that other statements
// on idempotency_keys do not wait for; to create it as a partition would take an exclusive one.
func (s *Store) createKeyDays(ctx context.Context) error {
	return s.db.transact(ctx, "create_key_days", func(tx *gorm.DB) error {
		var locked bool
		if err := tx.Raw(`SELECT pg_try_advisory_xact_lock(` + keyLock + `)`).Find(&locked).Error; err != nil || !locked {
			return err // another process creates them
		}
		var missing []keyDay
		if err := tx.Raw(selectMissingKeyDays, keyDaysAhead).Find(&missing).Error; err != nil {
			return fmt.Errorf("select missing partitions: %w", err)
		}
		for _, d := range missing {
			if err := createKeyDay(tx, d); err != nil {
				return err
			}
		}
		return nil
	})
}

func createKeyDay(tx *gorm.DB, d keyDay) error {
	table := d.table()
	if err := tx.Exec(`CREATE TABLE ` + table + ` (LIKE idempotency_keys INCLUDING ALL)`).Error; err != nil {
		return fmt.Errorf("create %s: %w", table, err)
	}
	from, to := d.Day.Format(time.DateOnly), d.Day.AddDate(0, 0, 1).Format(time.DateOnly)
	attach := `ALTER TABLE idempotency_keys ATTACH PARTITION ` + table + ` FOR VALUES FROM ('` + from + `') TO ('` + to + `')`
	if err := tx.Exec(attach).Error; err != nil {
		return fmt.Errorf("attach %s: %w", table, err)
	}
	return nil
}

// dropKeyDays drops the tables of days whose keys are all older than 24 hours. A partition is detached concurrently before
// it is dropped, because a DROP of a partition locks the whole table. A detachment cannot run inside a transaction. It waits
// for the transactions that use the table, and if it fails meanwhile, the next call finalizes it.
func (s *Store) dropKeyDays(ctx context.Context, days []keyDay) (dropped int, err error) {
	err = s.db.onConn(ctx, "drop_key_days", func(ctx context.Context, conn *sql.Conn) error {
		var locked bool
		if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock(`+keyLock+`)`).Scan(&locked); err != nil || !locked {
			return err // another process drops them
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_, _ = conn.ExecContext(ctx, `SELECT pg_advisory_unlock(`+keyLock+`)`) // it fails with the connection, which frees it
		}()
		for _, d := range days {
			if !d.old() {
				continue
			}
			if err := dropKeyDay(ctx, conn, d); err != nil {
				return err
			}
			dropped++
		}
		return nil
	})
	return dropped, err
}

func dropKeyDay(ctx context.Context, conn *sql.Conn, d keyDay) error {
	detach := `ALTER TABLE idempotency_keys DETACH PARTITION ` + d.table()
	var statements []string
	switch {
	case d.Pending:
		statements = append(statements, detach+` FINALIZE`)
	case d.Attached:
		statements = append(statements, detach+` CONCURRENTLY`)
	}
	for _, statement := range append(statements, `DROP TABLE IF EXISTS `+d.table()) {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("drop %s: %w", d.table(), err)
		}
	}
	return nil
}
