-- Cuts all that comes from outside to what stays exact in a double. The functions of src/bounds.rs; the bounds of ops come from src/wire.rs.

-- Unsigned integers from 2^63 on are read as negative ones.
local function bounded(value, most) return (value < 0 or value > most) and most or value end

-- A sequence number, or 0 where the value can be none.
local function number(value) return value >= 0 and value <= MAX_NUMBER and value or 0 end

-- A sequence number that a group continues from, or 0 where it is too high to be true and would leave no room above it.
local function seen(value) return value >= 0 and value < MAX_SEEN and value or 0 end
