-- Achilles' result tables.
create table if not exists achilles_results (
    analysis_id integer,
    stratum_1 varchar, stratum_2 varchar, stratum_3 varchar, stratum_4 varchar, stratum_5 varchar,
    count_value bigint
);
create table if not exists achilles_results_dist (
    analysis_id integer,
    stratum_1 varchar, stratum_2 varchar, stratum_3 varchar, stratum_4 varchar, stratum_5 varchar,
    count_value bigint,
    min_value double, max_value double, avg_value double, stdev_value double,
    median_value double, p10_value double, p25_value double, p75_value double, p90_value double
);
create table if not exists achilles_analysis (
    analysis_id integer,
    analysis_name varchar,
    stratum_1_name varchar, stratum_2_name varchar, stratum_3_name varchar, stratum_4_name varchar,
    stratum_5_name varchar,
    is_distribution integer
);
