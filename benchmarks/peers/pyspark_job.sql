-- Artists of each country by plays.
SELECT *, row_number() OVER (PARTITION BY country ORDER BY total_playcount DESC, artist_name) AS rank
FROM (
    SELECT /*+ BROADCAST(user_data) */ country, artist_name, CAST(coalesce(sum(playcount), 0) AS DOUBLE) AS total_playcount,
        count(DISTINCT user_id) AS listeners
    FROM user_top_artists JOIN user_data USING (user_id)
    WHERE country IS NOT NULL
    GROUP BY country, artist_name)
ORDER BY country, rank;

-- Countries of each artist by the artist's share of the country's plays.
SELECT *, row_number() OVER (PARTITION BY artist_name ORDER BY normalized_popularity DESC, country) AS rank
FROM (
    SELECT /*+ BROADCAST(totals) */ country, artist_name, total_playcount, listeners,
        if(plays > 0, total_playcount / plays, 0) AS normalized_popularity
    FROM artist_rank_in_country
    JOIN (SELECT country, sum(total_playcount) AS plays FROM artist_rank_in_country GROUP BY country) AS totals
    USING (country))
ORDER BY artist_name, rank
