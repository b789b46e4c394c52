"""SQL keywords, names, functions and symbols, of which statements for the gate are generated."""

_WORDS = """
SELECT FROM WHERE GROUP BY ORDER LIMIT OFFSET HAVING QUALIFY WITH RECURSIVE AS MATERIALIZED UNION ALL INTERSECT EXCEPT
DISTINCT ON USING JOIN LEFT CROSS LATERAL NATURAL ASOF POSITIONAL VALUES TABLE EXPLAIN ANALYZE DESCRIBE SUMMARIZE SHOW
PIVOT UNPIVOT IN CASE WHEN THEN ELSE END CAST TRY_CAST AND OR NOT IS NULL BETWEEN LIKE EXISTS ANY OVER PARTITION ROWS
PRECEDING CURRENT ROW FILTER WITHIN COLLATE SAMPLE TABLESAMPLE AT EXCLUDE REPLACE COLUMNS ARRAY STRUCT MAP INTERVAL
CREATE DROP INSERT INTO UPDATE SET DELETE ATTACH DETACH COPY TO EXPORT IMPORT INSTALL LOAD PRAGMA CALL USE VACUUM
CHECKPOINT BEGIN COMMIT PREPARE EXECUTE DEALLOCATE ALTER TEMP VIEW MACRO SECRET MERGE artist_rank users music_db main
system temp memory information_schema.tables pg_catalog.pg_class duckdb_settings() country artist rank user_id list
rowid a b x y t count(*) sum(rank) max(rank) row_number() range(3) generate_series(1,3) unnest(list) lower(country)
list_transform read_text('/etc/passwd') read_csv('/etc/passwd') glob('/*') getenv('HOME') current_setting('threads')
query('SELECT 1') query_table('users') sniff_csv('/etc/passwd') read_parquet('*') nextval('s') set_config
pragma_version() version() parquet_metadata('x') json_execute_serialized_sql sql_auto_complete('x') seq_scan('users')
checkpoint() now() random() '/etc/passwd' 'a' "a" "users" '/etc/*.csv' "/etc/passwd" $$x$$ 1 0 -1 1e308 NULL TRUE $1 ?
:a @x # -- /* */ ; ( ) [ ] { } , . :: := => -> ->> + - * / % ^ || = <> < > == ** ~ ! && & | << >> @> lambda x: x x->x
INTEGER VARCHAR BLOB DATE STRUCT(a INTEGER) INTEGER[] HUGEINT JSON REGCLASS ENUM UNION(a INTEGER) NOCASE C
"""
SQL_WORDS = _WORDS.split()
