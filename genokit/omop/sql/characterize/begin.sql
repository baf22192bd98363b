-- What the analyses are collected in: counts; and how many persons or records have a value, of which a distribution is
-- made at the end. `asked` names the analyses that are wanted.
create or replace temp table counted (
    analysis_id integer, stratum_1 varchar, stratum_2 varchar, stratum_3 varchar, stratum_4 varchar, n bigint
);
create or replace temp table spread (analysis_id integer, stratum_1 bigint, stratum_2 bigint, value double, n bigint);
create or replace temp table asked (analysis_id integer, is_distribution boolean);
