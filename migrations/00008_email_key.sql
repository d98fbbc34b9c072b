-- +goose Up

SET LOCAL lock_timeout = '2s';

-- E-mail addresses are compared by a key that the programs compute. lower(email) depends on the locale of the database: with
-- the character type C it leaves letters outside ASCII as they are, so two spellings of one address were two addresses.
ALTER TABLE users ADD COLUMN email_key text;

-- The key of an ASCII address is the address in small letters, in every locale. The other keys stay null for the program that
-- runs the migrations: it computes them, fails if two users have one address, and then makes the column NOT NULL.
UPDATE users SET email_key = lower(email COLLATE "C") WHERE octet_length(email) = char_length(email);

DROP INDEX users_email_key;
CREATE UNIQUE INDEX users_email_key ON users (email_key);

-- +goose Down

SET LOCAL lock_timeout = '2s';

DROP INDEX users_email_key;
ALTER TABLE users DROP COLUMN email_key;
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
