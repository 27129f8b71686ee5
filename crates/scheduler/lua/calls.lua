-- Open calls. The functions of src/transition/calls.rs, in its order. `fetch`, `save` and the local ones that pack and move members exist only here, and so does
-- `add_new`, which saves a command. How many calls each deployment has is a part of its totals (lua/windows.lua).
--
-- Members are session, sequence number of the grant, and deployment, so that the calls of an ended session are found in parts (P16); score 0.

calls = part(function(calls)
  -- How many open calls of a group are kept between calls of the step: 0.3 kB each.
  local MOST_KEPT = 5000
  -- Members -> whether they are open, and what is to be written; those that are to be read.
  local known, moves, wanted

  -- The member of a call. Members of open calls are kept by the number of their grant, and so is that they are open.
  local function member_of(id, number, deployment)
    local kept = context.calls[number]
    if kept and kept.session == id and kept.deployment == deployment then return kept.member, true end
    return id .. store.id(number) .. deployment, false
  end

  -- Reads the wanted calls.
  function calls.fetch()
    if #wanted == 0 then return end
    for i, score in ipairs(call('ZMSCORE', CALLS, unpack(wanted))) do known[wanted[i]] = score and true or false end
    wanted = {}
  end

  -- A call that will be looked up, so that `fetch` reads it.
  function calls.want(id, number, deployment)
    local member, open = member_of(id, number, deployment)
    -- A known call may have changed in this step.
    if known[member] == nil then
      if open then known[member] = true else wanted[#wanted + 1] = member end
    end
  end

  local function is_open(member, open)
    if known[member] == nil then known[member] = open or call('ZSCORE', CALLS, member) and true or false end
    return known[member]
  end

  local function set(member, deployment, open)
    known[member], moves[member] = open, open and 0
    windows.add_open(deployment, open and 1 or -1)
  end

  function calls.add(id, number, deployment)
    local member, open = member_of(id, number, deployment)
    if not is_open(member, open) then set(member, deployment, true) end
  end

  -- Adds a call of this step. Its number is new, so it need not be looked up.
  function calls.add_new(id, number, deployment)
    local member = id .. store.id(number) .. deployment
    if KEEPS then
      if context.calls.count == MOST_KEPT then context.calls = { count = 0 } end
      local of = context.calls
      of.count = of.count + 1
      of[number] = { member = member, session = id, deployment = deployment }
    end
    set(member, deployment, true)
  end

  -- Returns whether the call was open.
  function calls.remove(id, number, deployment)
    local member, open = member_of(id, number, deployment)
    if not is_open(member, open) then return false end
    if open then
      local of = context.calls
      of[number], of.count = nil, of.count - 1
    end
    set(member, deployment, false)
    return true
  end

  function calls.save()
    if next(moves) == nil then return end
    store.move_all(CALLS, moves)
    moves = {}
  end

  -- The first calls whose member has this prefix: { number, deployment } each.
  local function with_prefix(prefix, most)
    calls.save()
    local found = call('ZRANGEBYLEX', CALLS, '[' .. prefix, '[' .. prefix .. '\255', 'LIMIT', 0, most)
    for i, member in ipairs(found) do
      known[member] = true
      found[i] = { number = tonumber(member:sub(17, 32)), deployment = member:sub(33) }
    end
    return found
  end

  -- The first calls of a session, by their numbers.
  function calls.first_of(id, most) return with_prefix(id, most) end

  -- How many open calls a session has.
  function calls.count_of(id)
    calls.save()
    return call('ZLEXCOUNT', CALLS, '[' .. id, '[' .. id .. '\255')
  end

  -- The deployment of a call.
  function calls.deployment(id, number)
    local found = with_prefix(id .. store.id(number), 1)[1]
    return found and found.deployment
  end

  function calls.clear()
    store.write('UNLINK', CALLS)
    known, moves, context.calls = {}, {}, { count = 0 }
  end

  return function() known, moves, wanted = {}, {}, {} end
end)
