-- Artists of each country by plays, and countries of each artist by the artist's share of the country's plays.
COPY (
    SELECT *, row_number() OVER (PARTITION BY country ORDER BY total_playcount DESC, artist_name)::INTEGER AS rank
    FROM (
        SELECT country, artist_name, coalesce(sum(playcount), 0)::DOUBLE AS total_playcount,
            count(DISTINCT user_id) AS listeners
        FROM user_top_artists JOIN user_data USING (user_id)
        WHERE country IS NOT NULL
        GROUP BY ALL)
    ORDER BY country, rank)
TO '{folder}/artist_rank_in_country.parquet';

COPY (
    SELECT *, row_number() OVER (PARTITION BY artist_name ORDER BY normalized_popularity DESC, country)::INTEGER AS rank
    FROM (
        SELECT country, artist_name, total_playcount, listeners,
            CASE WHEN plays > 0 THEN total_playcount / plays ELSE 0 END AS normalized_popularity
        FROM '{folder}/artist_rank_in_country.parquet'
        JOIN (
            SELECT country, sum(total_playcount) AS plays
            FROM '{folder}/artist_rank_in_country.parquet' GROUP BY country)
        USING (country))
    ORDER BY artist_name, rank)
TO '{folder}/country_rank_per_artist.parquet';
