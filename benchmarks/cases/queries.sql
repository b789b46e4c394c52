-- Drake
SELECT country FROM processed_parquet_country_rank_per_artist WHERE artist_name = 'Drake' ORDER BY rank LIMIT 10
-- any artist
SELECT country FROM processed_parquet_country_rank_per_artist WHERE artist_name = $artist ORDER BY rank LIMIT 10
-- countries of any artist
SELECT rank, country, total_playcount, normalized_popularity, listeners FROM processed_parquet_country_rank_per_artist
WHERE artist_name = $artist ORDER BY rank LIMIT 10
-- Germany
SELECT artist_name, total_playcount FROM processed_parquet_artist_rank_in_country
WHERE country = 'Germany' ORDER BY rank LIMIT 10
-- a page
SELECT country, artist_name, total_playcount, rank FROM processed_parquet_artist_rank_in_country
WHERE country = 'Germany' AND rank > 100 ORDER BY rank LIMIT 100
-- countries
SELECT country, count(*) AS artists, sum(total_playcount) AS plays FROM processed_parquet_artist_rank_in_country
GROUP BY country ORDER BY country
-- users by country
SELECT country, count(*) AS users FROM raw_parquet_user_data WHERE country IS NOT NULL
GROUP BY country ORDER BY country
