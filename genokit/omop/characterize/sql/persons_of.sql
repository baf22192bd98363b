-- Persons by month, by year and ever; `tally` has the count of each number.
insert into counted
with month as (
    select kind, number // getvariable('months') as number, number % getvariable('months') + getvariable('first') as month, n
    from tally
    where kind in (2, 20)
)
select
    the_number + month.kind,
    case when month.kind = 2 then kind.concept_id else month // 12 * 100 + month % 12 + 1 end,
    case when month.kind = 2 then month // 12 * 100 + month % 12 + 1 end,
    null,
    null,
    n
from month
join kind using (number)
union all
select the_number + 4, kind.concept_id, aged.year, aged.gender_concept_id, aged.decile, n
from tally
join kind on kind.number = tally.number // getvariable('deciles')
join (select distinct by_decile, year, gender_concept_id, decile from aged where known) as aged
    on aged.by_decile = tally.number % getvariable('deciles')
where tally.kind = 4;

insert into spread
select the_number + 6, kind.concept_id, aged.gender_concept_id, aged.age, n
from tally
join kind on kind.number = tally.number // getvariable('ages')
join (select distinct by_age, gender_concept_id, age from aged where known) as aged
    on aged.by_age = tally.number % getvariable('ages')
where tally.kind = 6
union all
select the_number + 91, kind.concept_id, null, tally.number & 4294967295, n
from tally
join kind on kind.number = tally.number >> 32
where tally.kind = 91
union all
select the_number + 3, null, null, number, n from tally where kind = 3;
