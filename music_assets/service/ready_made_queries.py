"""The ready-made questions: their SQL. Those with pages take `$limit`, `$offset`; one row too many tells of a next."""

COUNTRIES = """
SELECT country, count(*) AS artists, sum(total_playcount) AS total_playcount
FROM processed_parquet_artist_rank_in_country
GROUP BY country
ORDER BY country
LIMIT $limit OFFSET $offset
"""

ARTISTS_OF_COUNTRY = """
SELECT rank, artist_name, total_playcount
FROM processed_parquet_artist_rank_in_country
WHERE country = $country AND rank > $offset
ORDER BY rank
LIMIT $limit
"""

COUNTRIES_OF_ARTIST = """
SELECT rank, country, total_playcount, normalized_popularity
FROM processed_parquet_country_rank_per_artist
WHERE artist_name = $artist AND rank > $offset
ORDER BY rank
LIMIT $limit
"""

COUNTRIES_OF_ARTIST_BY_LISTENERS = """
WITH places AS (
    SELECT DISTINCT user_id, rank FROM raw_parquet_user_top_artists WHERE artist_name = $artist
), current_places AS (
    SELECT
        user_id,
        first(artist_name ORDER BY ingested_at DESC, playcount DESC NULLS LAST, artist_name, mbid NULLS LAST)
            AS artist_name
    FROM raw_parquet_user_top_artists SEMI JOIN places USING (user_id, rank)
    GROUP BY user_id, rank
), listeners AS (
    SELECT DISTINCT user_id FROM current_places WHERE artist_name = $artist
), homes AS (
    SELECT
        user_id,
        first(country ORDER BY ingested_at DESC, total_scrobbles DESC NULLS LAST, country NULLS LAST) AS country
    FROM raw_parquet_user_data SEMI JOIN listeners USING (user_id)
    GROUP BY user_id
), audiences AS (
    SELECT country, count(*) AS listeners FROM homes WHERE country IS NOT NULL GROUP BY country
)
SELECT rank, country, total_playcount, normalized_popularity, listeners
FROM processed_parquet_country_rank_per_artist JOIN audiences USING (country)
WHERE artist_name = $artist AND listeners >= $min_listeners
ORDER BY rank
LIMIT $limit OFFSET $offset
"""
"""Listeners of an artist in a country: users whose current country it is and in whose current top artists the artist
stands. `rank` stays the one among all countries."""

ARTISTS = """
SELECT artist_name, country AS top_country, normalized_popularity
FROM processed_parquet_country_rank_per_artist
WHERE rank = 1 AND contains(lower(artist_name), lower($search))
ORDER BY artist_name
LIMIT $limit OFFSET $offset
"""

SIMILAR_ARTISTS = """
SELECT unnest($keys::VARCHAR[]) AS artist_name, unnest($similarities::DOUBLE[]) AS similarity
LIMIT $limit
"""

SIMILAR_USERS = """
SELECT unnest($keys::INTEGER[]) AS user_id, unnest($similarities::DOUBLE[]) AS similarity
LIMIT $limit
"""

RECOMMENDATIONS = """
WITH near AS (
    SELECT unnest($keys::VARCHAR[]) AS artist_name, unnest($similarities::DOUBLE[]) AS similarity
), listed AS (
    SELECT
        rank,
        first(artist_name ORDER BY ingested_at DESC, playcount DESC NULLS LAST, artist_name, mbid NULLS LAST)
            AS artist_name
    FROM raw_parquet_user_top_artists
    WHERE user_id = $user_id
    GROUP BY rank
)
SELECT artist_name, similarity
FROM near ANTI JOIN listed USING (artist_name)
ORDER BY similarity DESC, artist_name
LIMIT $limit
"""
"""The artists near a user without those of the user's current list."""
