print('to come')
