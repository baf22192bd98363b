select no::int as row_id, subject_id, hadm_id, admittime, dischtime, deathtime,
    case when newborn and k = 0 then 'NEWBORN' when share(a) < 0.83 then 'EMERGENCY' when share(a) < 0.97 then 'ELECTIVE'
        else 'URGENT' end as admission_type,
    case when share(a) < 0.83 then pick(['EMERGENCY ROOM ADMIT', 'EMERGENCY ROOM ADMIT', 'EMERGENCY ROOM ADMIT',
            'CLINIC REFERRAL/PREMATURE', 'TRANSFER FROM HOSP/EXTRAM', 'TRANSFER FROM SKILLED NUR',
            'TRANSFER FROM OTHER HEALT', '** INFO NOT AVAILABLE **'], b)
        else pick(['PHYS REFERRAL/NORMAL DELI', 'PHYS REFERRAL/NORMAL DELI', 'HMO REFERRAL/SICK',
            'TRSF WITHIN THIS FACILITY'], b) end as admission_location,
    case when died then 'DEAD/EXPIRED' else pick(['HOME', 'HOME', 'HOME', 'HOME HEALTH CARE', 'HOME HEALTH CARE', 'SNF',
        'SNF', 'REHAB/DISTINCT PART HOSP', 'LONG TERM CARE HOSPITAL', 'SHORT TERM HOSPITAL', 'DISC-TRAN CANCER/CHLDRN H',
        'DISCH-TRAN TO PSYCH HOSP', 'HOSPICE-HOME', 'LEFT AGAINST MEDICAL ADVI', 'HOME WITH HOME IV PROVIDR',
        'HOSPICE-MEDICAL FACILITY', 'ICF', 'OTHER FACILITY'], c) end as discharge_location,
    case when over_89 then 'Medicare' else pick(['Medicare', 'Medicare', 'Medicare', 'Medicare', 'Private', 'Private',
        'Private', 'Medicaid', 'Government', 'Self Pay'], c >> 8) end as insurance,
    -- Language was not kept in the years of CareVue's beginnings.
    case when era < 0.43 then null else pick(['ENGL', 'ENGL', 'ENGL', 'ENGL', 'ENGL', 'ENGL', 'SPAN', 'RUSS', 'PTUN', 'CANT',
        'PORT', 'CAPE', 'HAIT'], p) end as language,
    case when share(p) < 0.008 then null else pick(['CATHOLIC', 'CATHOLIC', 'CATHOLIC', 'NOT SPECIFIED', 'NOT SPECIFIED',
        'UNOBTAINABLE', 'PROTESTANT QUAKER', 'JEWISH', 'OTHER', 'EPISCOPALIAN', 'GREEK ORTHODOX', 'CHRISTIAN SCIENTIST',
        'BUDDHIST', 'MUSLIM', 'HINDU', 'JEHOVAH''S WITNESS', 'UNITARIAN-UNIVERSALIST', '7TH DAY ADVENTIST', 'HEBREW',
        'ROMANIAN EAST. ORTH', 'BAPTIST', 'METHODIST', 'LUTHERAN'], p >> 8) end as religion,
    case when newborn then null else pick(['MARRIED', 'MARRIED', 'MARRIED', 'MARRIED', 'SINGLE', 'SINGLE', 'WIDOWED',
        'DIVORCED', 'SEPARATED', 'UNKNOWN (DEFAULT)', 'LIFE PARTNER'], p >> 16) end as marital_status,
    case when share(p >> 3) < 0.7 then 'WHITE' else pick(['BLACK/AFRICAN AMERICAN', 'BLACK/AFRICAN AMERICAN',
        'BLACK/AFRICAN AMERICAN', 'UNKNOWN/NOT SPECIFIED', 'UNKNOWN/NOT SPECIFIED', 'HISPANIC OR LATINO',
        'HISPANIC OR LATINO', 'OTHER', 'ASIAN', 'UNABLE TO OBTAIN', 'PATIENT DECLINED TO ANSWER', 'ASIAN - CHINESE',
        'HISPANIC/LATINO - PUERTO RICAN', 'BLACK/CAPE VERDEAN', 'WHITE - RUSSIAN', 'MULTI RACE ETHNICITY', 'BLACK/HAITIAN',
        'HISPANIC/LATINO - DOMINICAN', 'WHITE - OTHER EUROPEAN', 'ASIAN - ASIAN INDIAN', 'PORTUGUESE',
        'WHITE - BRAZILIAN', 'ASIAN - VIETNAMESE', 'AMERICAN INDIAN/ALASKA NATIVE', 'BLACK/AFRICAN',
        'MIDDLE EASTERN', 'NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER'], p >> 24) end as ethnicity,
    case when share(a) < 0.6 and not newborn then minutes(admittime, -120 - (b % 600)::bigint) end as edregtime,
    case when share(a) < 0.6 and not newborn then minutes(admittime, 10 + (b % 90)::bigint) end as edouttime,
    case when newborn and k = 0 then 'NEWBORN' else pick(['PNEUMONIA', 'SEPSIS', 'CONGESTIVE HEART FAILURE',
        'CORONARY ARTERY DISEASE', 'CHEST PAIN', 'INTRACRANIAL HEMORRHAGE', 'ALTERED MENTAL STATUS', 'GASTROINTESTINAL BLEED',
        'UPPER GI BLEED', 'ABDOMINAL PAIN', 'S/P FALL', 'DIABETIC KETOACIDOSIS', 'SUBARACHNOID HEMORRHAGE',
        'HYPOTENSION', 'SYNCOPE;TELEMETRY', 'CORONARY ARTERY DISEASE\CORONARY ARTERY BYPASS GRAFT /SDA', 'LIVER FAILURE',
        'CHRONIC OBST PULM DISEASE', 'FEVER', 'STROKE;TELEMETRY;TRANSIENT ISCHEMIC ATTACK'], c >> 16) end as diagnosis,
    died::smallint as hospital_expire_flag, (share(b) > 0.02)::smallint as has_chartevents_data
from (
    select *, chance('admission', key) as a, chance('admission2', key) as b, chance('admission3', key) as c,
        chance('who', person_no) as p
    from admission
)
order by row_id
