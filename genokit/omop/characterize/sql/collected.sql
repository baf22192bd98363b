-- Adds counted rows to those that results are made from; `the_rows` has all columns.
insert into counted
select analysis_id, stratum_1, stratum_2, stratum_3, stratum_4, n
from the_rows
where n > 0 and value is null and least is null;

insert into spread
select analysis_id, stratum_1, stratum_2, value, n from the_rows where n > 0 and value is not null;
