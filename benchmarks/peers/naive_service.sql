-- The tables as parquet files, with the rows as the window functions of the rankings leave them.
SET temp_directory = '{folder}/spill';
COPY raw_parquet_user_data TO '{folder}/raw_parquet_user_data.parquet';
COPY (
    SELECT country, artist_name, total_playcount, listeners,
        row_number() OVER (PARTITION BY country ORDER BY total_playcount DESC, artist_name)::INTEGER AS rank
    FROM processed_parquet_artist_rank_in_country)
TO '{folder}/processed_parquet_artist_rank_in_country.parquet';
COPY (
    SELECT country, artist_name, total_playcount, normalized_popularity, listeners,
        row_number() OVER (PARTITION BY artist_name ORDER BY normalized_popularity DESC, country)::INTEGER AS rank
    FROM processed_parquet_country_rank_per_artist)
TO '{folder}/processed_parquet_country_rank_per_artist.parquet';
