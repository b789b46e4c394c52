-- The rankings as sorted tables, and the raw tables as views, in a DuckDB file.
SET preserve_insertion_order = true;
ATTACH '{folder}/music_db.duckdb' AS music_db;
CREATE TABLE music_db.artist_rank_in_country AS FROM '{folder}/artist_rank_in_country.parquet';
CREATE TABLE music_db.country_rank_per_artist AS FROM '{folder}/country_rank_per_artist.parquet';
CREATE VIEW music_db.user_data AS FROM '{folder}/raw/user_data/*.parquet';
CREATE VIEW music_db.user_top_artists AS FROM '{folder}/raw/user_top_artists/*.parquet';
DETACH music_db;
