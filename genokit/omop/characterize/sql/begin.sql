-- Tables that collect results: counts; values with the number of persons or records, from which distributions are made at
-- the end; and finished distributions, for values that may be as many as records. `asked` has the requested analyses.
create or replace temp table counted (
    analysis_id integer, stratum_1 varchar, stratum_2 varchar, stratum_3 varchar, stratum_4 varchar, n bigint
);
create or replace temp table spread (analysis_id integer, stratum_1 bigint, stratum_2 bigint, value double, n bigint);
create or replace temp table described (
    analysis_id integer, stratum_1 bigint, stratum_2 bigint,
    summary struct(n bigint, least double, most double, average double, deviation double, parts double[])
);
create or replace temp table asked (analysis_id integer, is_distribution boolean);
create or replace temp macro summary_of(v) as {
    'n': count(v), 'least': min(v)::double, 'most': max(v)::double, 'average': avg(v)::double,
    'deviation': stddev_samp(v)::double, 'parts': quantile_disc(v::double, [0.1, 0.25, 0.5, 0.75, 0.9])
};
