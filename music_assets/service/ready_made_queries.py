"""The SQL of the ready-made queries. Those with pages have the parameters `$limit` and `$offset`."""

COUNTRIES = """
SELECT country, artists, total_playcount
FROM country_totals
ORDER BY country
LIMIT $limit OFFSET $offset
"""

COUNTRY_NAMES = """
SELECT country
FROM country_totals
ORDER BY country
"""

ARTISTS_OF_COUNTRY = """
SELECT rank, artist_name, total_playcount, listeners
FROM processed_parquet_artist_rank_in_country
WHERE country = $country AND rank > $offset
ORDER BY rank
LIMIT $limit
"""

COUNTRIES_OF_ARTIST = """
SELECT rank, country, total_playcount, normalized_popularity, listeners
FROM processed_parquet_country_rank_per_artist
WHERE artist_name = $artist AND listeners >= $min_listeners
ORDER BY rank
LIMIT $limit OFFSET $offset
"""
"""`rank` is the rank among all countries."""

TOP_ARTISTS = """
SELECT rank, artist_name, total_playcount, listeners, countries, top_country
FROM world_artists
WHERE rank > $offset
ORDER BY rank
LIMIT $limit
"""

DISTINCTIVE_ARTISTS = """
SELECT rank, artist_name, ratio, listeners, expected_listeners, total_playcount
FROM distinctive_artists
WHERE country = $country AND rank > $offset
ORDER BY rank
LIMIT $limit
"""

SIMILAR_COUNTRIES = """
SELECT rank, similar_country AS country, similarity
FROM similar_countries
WHERE country = $country AND rank > $offset
ORDER BY rank
LIMIT $limit
"""

CHANGES = """
SELECT artist_name, rank, previous_rank, change
FROM rank_changes
WHERE country IS NOT DISTINCT FROM $country AND ($change IS NULL OR change = $change)
ORDER BY rank, previous_rank
LIMIT $limit OFFSET $offset
"""
"""`$country` NULL: the world. `$change` NULL: every kind of change."""

RECOMMENDATIONS = """
WITH best AS (
    SELECT unnest($artist_name::VARCHAR[]) AS artist_name, unnest($score::DOUBLE[]) AS score
), listed AS (
    FROM current_user_top_artists WHERE user_id = $user_id
)
SELECT artist_name, score
FROM best ANTI JOIN listed USING (artist_name)
ORDER BY score DESC, artist_name
LIMIT $limit
"""

COUNTRY_SUMMARY = """
SELECT
    coalesce(max(artists), 0) AS artists, coalesce(max(total_playcount), 0) AS plays,
    (
        SELECT coalesce(max(total_playcount), 0)
        FROM processed_parquet_artist_rank_in_country
        WHERE country = $country AND rank = 1
    ) AS largest
FROM country_totals
WHERE country = $country
"""
"""`largest` is the number of plays of the first artist."""

USERS_BY_COUNTRY = """
SELECT country, count(*) AS users
FROM current_user_data
WHERE country IS NOT NULL
GROUP BY country
ORDER BY users DESC, country
"""

ARTISTS_OF_COUNTRY_BY_NAME = """
SELECT rank, artist_name, total_playcount, listeners
FROM processed_parquet_artist_rank_in_country
WHERE country = $country AND contains(lower(artist_name), lower($search))
ORDER BY rank
LIMIT $limit OFFSET $offset
"""

COUNTRIES_BY_NAME = """
SELECT country, total_playcount
FROM country_totals
WHERE contains(lower(country), lower($search))
ORDER BY total_playcount DESC, country
LIMIT $limit
"""

REJECT_REASONS = """
SELECT
    table_name, source_file, reason, count(*) AS rejects, min(line) AS first_line,
    min_by(raw_line, line)[:200] AS example
FROM rejected_rows
WHERE ingested_at >= $since::TIMESTAMP
GROUP BY table_name, source_file, reason
ORDER BY table_name, source_file, rejects DESC, reason
LIMIT $limit
"""

COMPARE_COUNTRIES = """
WITH candidates AS (
    SELECT DISTINCT artist_name
    FROM processed_parquet_artist_rank_in_country
    WHERE country IN ($first, $second) AND rank <= $limit
), shares AS (
    SELECT artist_name, country, rank, ranked.total_playcount / nullif(totals.total_playcount, 0) AS share
    FROM processed_parquet_artist_rank_in_country ranked
    JOIN candidates USING (artist_name)
    JOIN country_totals totals USING (country)
    WHERE country IN ($first, $second)
)
SELECT
    artist_name,
    max(rank) FILTER (WHERE country = $first) AS first_rank,
    coalesce(max(share) FILTER (WHERE country = $first), 0) AS first_share,
    max(rank) FILTER (WHERE country = $second) AS second_rank,
    coalesce(max(share) FILTER (WHERE country = $second), 0) AS second_share
FROM shares
GROUP BY artist_name
ORDER BY greatest(first_share, second_share) DESC, artist_name
LIMIT $limit
"""

OVERLAP_OF_COUNTRIES = """
WITH one AS (
    FROM processed_parquet_artist_rank_in_country WHERE country = $first
), other AS (
    FROM processed_parquet_artist_rank_in_country WHERE country = $second
), totals AS (
    SELECT
        max(total_playcount) FILTER (WHERE country = $first) AS of_one,
        max(total_playcount) FILTER (WHERE country = $second) AS of_other
    FROM country_totals
)
SELECT coalesce(
    sum(least(one.total_playcount / nullif(of_one, 0), other.total_playcount / nullif(of_other, 0))), 0
) AS overlap
FROM one JOIN other USING (artist_name) CROSS JOIN totals
"""

FAVOURITE_COUNTRIES = """
WITH wanted AS (
    SELECT unnest($artists::VARCHAR[]) AS artist_name
)
SELECT
    artist_name,
    arg_max(country, normalized_popularity + CASE WHEN listeners >= $min_listeners THEN 1 ELSE 0 END) AS country
FROM processed_parquet_country_rank_per_artist JOIN wanted USING (artist_name)
GROUP BY artist_name
"""
"""The country where each artist is most popular, one with enough listeners if there is one."""
