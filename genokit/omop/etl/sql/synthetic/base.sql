-- The people that all synthetic tables speak of, and what their rows are drawn from. Chance is a hash of (seed, purpose,
-- row), never a generator with a state: any part can be made by itself, in any order, by any number of threads.
-- Made before this: the macros seed() and persons(), and the lists item, lab, drug, code and cpt, all of them texts.
create macro chance(purpose, row) as hash(seed(), purpose, row);
create macro share(h) as (h % 1000003)::double / 1000003;          -- even between 0 and 1
create macro bell(h) as (((h & 65535) + ((h >> 16) & 65535) + ((h >> 32) & 65535))::double / 65536 - 1.5) * 2;
create macro pick(words, h) as words[1 + (h % len(words))::int];
create macro minutes(t, n) as t + to_minutes(n::bigint);
create macro midnight(t) as date_trunc('day', t);


-- 1,024 places a list, shared by weight, so that one draw of ten bits finds an item.
create macro places(weight, total, cum) as range((cum - weight) * 1024 // total, cum * 1024 // total);
create table place as
with thing as (
    select linksto as list, if(dbsource = 'carevue', 0, 1) as era, itemid::int as itemid, label, category, unit,
        mean::double as mean, sd::double as sd, decimals::int as decimals, coalesce(cap::double, 1e9) as cap,
        null::double as low, null::double as high, string_split(texts, '|') as texts, weight::bigint as weight
    from item where linksto <> 'microbiologyevents'
    union all by name
    select category as list, 1 as era, itemid::int as itemid, label, weight::bigint as weight
    from item where linksto = 'microbiologyevents'
    union all by name
    select 'labevents' as list, 1 as era, itemid::int as itemid, label, unit, mean::double as mean, sd::double as sd,
        decimals::int as decimals, coalesce(cap::double, 1e9) as cap, low::double as low, high::double as high,
        string_split(texts, '|') as texts, weight::bigint as weight
    from lab
), shared as (
    select *, sum(weight) over (partition by list, era order by itemid) as cum,
        sum(weight) over (partition by list, era) as total
    from thing
)
select list, era, unnest(places(weight, total::bigint, cum::bigint))::int as place, itemid, label, category, unit, mean,
    sd, decimals, cap, low, high, texts
from shared;

create table drug_place as
select unnest(places(weight::bigint, total::bigint, cum::bigint))::int as place, * exclude (weight, total, cum)
from (select *, sum(weight::bigint) over (order by drug) as cum, sum(weight::bigint) over () as total from drug);

create table code_place as
select unnest(places(weight::bigint, total::bigint, cum::bigint))::int as place, kind, code
from (
    select *, sum(weight::bigint) over (partition by kind order by code) as cum,
        sum(weight::bigint) over (partition by kind) as total
    from code
);

create table cpt_place as
select unnest(places(weight::bigint, total::bigint, cum::bigint))::int as place, * exclude (weight, total, cum)
from (select *, sum(weight::bigint) over (order by cpt) as cum, sum(weight::bigint) over () as total from cpt);

create table person as
select i as no, (2 + 3 * i + h % 3)::int as subject_id,
    if(share(chance('gender', i)) < 0.56, 'M', 'F') as gender,
    share(h) < 0.165 as newborn,
    share(chance('era', i)) as era,                                  -- CareVue until 2008, MetaVision from then on
    17 + 74 * sqrt(share(chance('age', i))) as age,
    timestamp '2101-01-01' + to_minutes((share(chance('first', i)) * 49000000)::bigint) as first_admittime,
    case when share(h) < 0.165 then 1
        when share(chance('admissions', i)) < 0.84 then 1
        when share(chance('admissions', i)) < 0.935 then 2
        when share(chance('admissions', i)) < 0.97 then 3
        else 4 + chance('more', i) % 7 end::int as admissions
from (select i, chance('person', i) as h from range(persons()) t (i));

create table admission as
with every as (
    select p.*, k, (p.no * 16 + k) as key,
        (600 + -ln(1 - share(chance('los', p.no * 16 + k))) * 11500)::bigint as los_min,
        -- One in a hundred comes back before the books of the last admission are closed.
        if(share(chance('overlap', p.no * 16 + k)) < 0.01, -240,
            (14400 + -ln(1 - share(chance('gap', p.no * 16 + k))) * 500000)::bigint) as gap_min
    from person p, unnest(range(p.admissions)) t (k)
), dated as (
    select *, k = admissions - 1 as last,
        minutes(first_admittime, coalesce(sum(los_min + gap_min) over (
            partition by no order by k rows between unbounded preceding and 1 preceding), 0)) as admittime
    from every
), ended as (
    select *, last and share(chance('death', key)) < if(newborn, 0.01, 0.14) as died,
        -- Some die on the way, and are discharged before they came.
        case when last and share(chance('death', key)) < if(newborn, 0.00001, 0.0015) then -300
            else los_min end as stay_min,
        not newborn and age + date_diff('day', first_admittime, max(admittime) over (partition by no)) / 365.25 > 89
            as over_89
    from dated
)
select row_number() over (order by no, k) as no, no as person_no, subject_id, gender, newborn, over_89, age, era, k, key,
    (100000 + row_number() over (order by no, k))::int as hadm_id, admittime, minutes(admittime, stay_min) as dischtime,
    stay_min, died, last,
    case when died then minutes(admittime, stay_min + if(share(chance('late', key)) < 0.05, 35, 0)) end as deathtime
from ended order by 1;

create table dead as
select subject_id, max(deathtime) as deathtime, bool_or(over_89) as over_89,
    coalesce(midnight(max(deathtime)),
        case when not bool_or(newborn) and share(chance('later', any_value(person_no))) < 0.27
            then midnight(minutes(max(dischtime), -ln(1 - share(chance('when', any_value(person_no)))) * 500000)) end) as dod
from admission group by subject_id;

create table stay as
with every as (
    select a.*, j, n, stay_min::double / n as slot_min, a.key * 4 + j as stay_key
    from (
        select *, case when stay_min <= 0 or share(chance('stays', key)) < 0.02 then 0
            when share(chance('stays', key)) < 0.945 then 1
            when share(chance('stays', key)) < 0.99 then 2 else 3 end as n
        from admission
    ) a, unnest(range(n)) t (j)
), dated as (
    select *, minutes(admittime, greatest(0, slot_min * j + case
            -- A stay that begins before the one before it has ended.
            when j > 0 and share(chance('before', stay_key)) < 0.08 then -0.8 * slot_min
            when j = 0 and share(chance('direct', stay_key)) < 0.3 then 0
            else 0.15 * slot_min * share(chance('in', stay_key)) end)) as intime,
        slot_min * (0.25 + 0.5 * share(chance('out', stay_key))) as long_min
    from every
)
select row_number() over (order by no, j) as no, no as admission_no, person_no, subject_id, hadm_id, admittime, dischtime,
    (200000 + row_number() over (order by no, j))::int as icustay_id, j, n as stays, stay_key, intime,
    date_trunc('second', minutes(intime, long_min)) as outtime, long_min,
    case when era < 0.612 then 'carevue' when era < 0.997 then 'metavision' else 'both' end as dbsource,
    case when era < 0.612 then 0 else 1 end as era,
    case when newborn then 'NICU' else pick(['MICU', 'MICU', 'MICU', 'CSRU', 'CSRU', 'SICU', 'CCU', 'TSICU'],
        chance('unit', stay_key)) end as first_careunit,
    case when newborn then 'NICU' when share(chance('moved', stay_key)) < 0.93 then first_careunit
        else pick(['MICU', 'SICU', 'CCU'], chance('unit2', stay_key)) end as last_careunit,
    (7 + chance('ward', stay_key) % 51)::smallint as first_wardid,
    if(share(chance('moved', stay_key)) < 0.93, first_wardid, 7 + chance('ward2', stay_key) % 51)::smallint as last_wardid
from dated order by 1;

create table visit as
select admission.*, coalesce(icustays, 0) as icustays, first_icustay
from admission left join (
    select hadm_id, count(*) as icustays, min(icustay_id) as first_icustay from stay group by hadm_id
) using (hadm_id) order by no;

create table carer as
select i as no, (14000 + i)::int as cgid from range(least(7567, 40 + persons() // 6)) t (i);
create macro carer(h) as
    if(h % 200 = 0, 99000, 14000 + h % least(7567, 40 + persons() // 6))::int;   -- some are in no list
